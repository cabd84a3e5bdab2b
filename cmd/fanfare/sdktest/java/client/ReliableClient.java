import java.util.concurrent.CountDownLatch;

import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.client.WebPubSubClient;
import com.azure.messaging.webpubsub.client.WebPubSubClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;

/**
 * A client of the reliable protocol, as the SDK makes it by default, that prints what it is handed until it is told
 * "bye". Only "connected", "joined", messages and "stopped" are what a client sees that loses nothing.
 */
public final class ReliableClient {
    public static void main(String[] args) throws InterruptedException {
        String url = new WebPubSubServiceClientBuilder().connectionString(System.getenv("FANFARE_CONNECTION_STRING"))
            .hub("reliable").buildClient()
            .getClientAccessToken(new GetClientAccessTokenOptions().addRole("webpubsub.joinLeaveGroup.room")).getUrl();
        WebPubSubClient client = new WebPubSubClientBuilder().clientAccessUrl(url).buildClient();
        CountDownLatch connected = new CountDownLatch(1);
        CountDownLatch told = new CountDownLatch(1);
        client.addOnConnectedEventHandler(e -> {
            System.out.println("connected");
            connected.countDown();
        });
        client.addOnDisconnectedEventHandler(e -> {
            if (told.getCount() > 0) {
                System.out.println("disconnected: " + e.getReason());
            }
        });
        client.addOnGroupMessageEventHandler(e -> {
            String text = e.getData().toString();
            if (text.equals("bye")) {
                told.countDown();
            } else {
                System.out.println("got " + e.getSequenceId() + " " + text);
            }
        });
        client.start();
        connected.await();
        client.joinGroup("room");
        System.out.println("joined");
        told.await();
        client.stop();
        System.out.println("stopped");
        System.exit(0); // whatever threads the SDK keeps
    }
}
