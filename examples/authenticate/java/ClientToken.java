import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.CountDownLatch;

import com.azure.core.util.BinaryData;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;

/**
 * A client with an access token. The server, which has the key, makes a URL with a token
 * for one user, a few roles and an hour; the client, which has the URL and nothing else,
 * connects with it.
 */
public class ClientToken {
    static final String CONNECTION_STRING = System.getenv().getOrDefault("CONNECTION_STRING",
        "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;");

    /**
     * What the server does when somebody asks for a URL, once it knows who that is. The
     * token is signed here, without asking the node.
     */
    static String negotiate(String user) {
        WebPubSubServiceClient service =
            new WebPubSubServiceClientBuilder().connectionString(CONNECTION_STRING).hub("chat").buildClient();
        return service.getClientAccessToken(new GetClientAccessTokenOptions()
            .setUserId(user)
            .addRole("webpubsub.joinLeaveGroup.room").addRole("webpubsub.sendToGroup.room") // and nothing but this group
            .setExpiresAfter(Duration.ofHours(1))).getUrl();
    }

    /**
     * What the client does, anywhere; in an application it would get the URL by a request
     * to the server. It speaks the JSON subprotocol over the JDK's own WebSocket.
     */
    public static void main(String[] args) throws Exception {
        CountDownLatch done = new CountDownLatch(1);
        WebSocket client = HttpClient.newHttpClient().newWebSocketBuilder()
            .subprotocols("json.webpubsub.azure.v1")
            .buildAsync(URI.create(negotiate("ann")), new WebSocket.Listener() {
                final StringBuilder frame = new StringBuilder();

                @Override
                public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
                    frame.append(part);
                    if (last) {
                        Map<?, ?> message = BinaryData.fromString(frame.toString()).toObject(Map.class);
                        frame.setLength(0);
                        if ("connected".equals(message.get("event"))) {
                            System.out.println("connected as " + message.get("userId"));
                        } else if ("message".equals(message.get("type"))) {
                            System.out.println("received: " + message.get("data"));
                            done.countDown();
                        }
                    }
                    return WebSocket.Listener.super.onText(socket, part, last);
                }

                @Override
                public CompletionStage<?> onClose(WebSocket socket, int status, String reason) {
                    done.countDown();
                    return null;
                }
            }).join();

        send(client, Map.of("type", "joinGroup", "group", "room"));
        send(client, Map.of("type", "sendToGroup", "group", "room", "noEcho", true, "dataType", "text", "data", "hello from ann"));
        done.await();
        client.sendClose(WebSocket.NORMAL_CLOSURE, "").join();
        System.exit(0); // the SDK's threads would go on
    }

    static void send(WebSocket client, Map<String, Object> message) {
        client.sendText(BinaryData.fromObject(message).toString(), true).join();
    }
}
