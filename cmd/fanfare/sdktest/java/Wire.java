import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;

/** The JDK's WebSocket, speaking the JSON subprotocol. What it receives has an order. */
final class Wire implements WebSocket.Listener, AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();

    final String id;
    final String user;
    private final WebPubSubServiceClient service;
    private final BlockingQueue<String> inbox = new LinkedBlockingQueue<>();
    private final StringBuilder partial = new StringBuilder();
    private final WebSocket socket;

    Wire(WebPubSubServiceClient service, String url) throws Exception {
        this.service = service;
        socket = HttpClient.newHttpClient().newWebSocketBuilder()
            .subprotocols("json.webpubsub.azure.v1")
            .buildAsync(URI.create(url), this).get(60, TimeUnit.SECONDS);
        JsonNode connected = read();
        Check.equal("connected", connected.path("event").asText(), "the first message's event");
        id = connected.path("connectionId").asText();
        user = connected.path("userId").asText("");
    }

    void send(String json) throws Exception {
        socket.sendText(json, true).get(60, TimeUnit.SECONDS);
    }

    /** The next message; the close frame comes as {"closed": code, "reason": text}. */
    JsonNode read() throws IOException, InterruptedException {
        String text = inbox.poll(60, TimeUnit.SECONDS);
        if (text == null) {
            throw new AssertionError("waited a minute for a message and saw nothing");
        }
        return JSON.readTree(text);
    }

    /** All data messages so far, as "from type data": one last message, which what was answered before cannot overtake, marks the end. */
    List<String> untilNow() throws Exception {
        service.sendToConnection(id, "END", WebPubSubContentType.TEXT_PLAIN);
        List<String> seen = new ArrayList<>();
        for (;;) {
            JsonNode m = read();
            if (m.path("data").asText().equals("END")) {
                return seen;
            }
            String from = m.path("from").asText().equals("group") ? "group " + m.path("group").asText() : "server";
            seen.add(from + " " + m.path("dataType").asText() + " " + m.path("data"));
        }
    }

    @Override
    public CompletionStage<?> onText(WebSocket ws, CharSequence data, boolean last) {
        partial.append(data);
        if (last) {
            inbox.add(partial.toString());
            partial.setLength(0);
        }
        ws.request(1);
        return null;
    }

    @Override
    public CompletionStage<?> onClose(WebSocket ws, int code, String reason) {
        inbox.add(JSON.createObjectNode().put("closed", code).put("reason", reason).toString());
        return null;
    }

    @Override
    public void close() {
        socket.abort();
    }
}
