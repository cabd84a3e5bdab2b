import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;

import com.azure.core.util.BinaryData;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;

/**
 * Clients without a token that show a certificate, judged by an application server: the
 * node asks it about each client that wants to connect, and tells what the client showed.
 */
public class CertificateServer {
    /** Whom we know: users by the SHA-1 of their certificates, as "openssl x509 -fingerprint" prints it. */
    static final Map<String, String> USERS = Map.of(plain(System.getenv("THUMBPRINT")), "drill-1");

    static String plain(String thumbprint) {
        return thumbprint.replace(":", "").toLowerCase();
    }

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "3000"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/eventhandler", x -> {
            if (x.getRequestMethod().equals("OPTIONS")) { // the node asks whether it may call us at all
                x.getResponseHeaders().set("WebHook-Allowed-Origin", x.getRequestHeaders().getFirst("WebHook-Request-Origin"));
                answer(x, 200, "");
            } else {
                connect(x);
            }
        });
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }

    /** The answer reveals nothing and changes nothing here, so it does not matter who asks. */
    static void connect(HttpExchange x) throws IOException {
        Map<?, ?> event = BinaryData.fromStream(x.getRequestBody()).toObject(Map.class);
        List<?> shown = (List<?>) event.get("clientCertificates");
        if (shown.isEmpty()) {
            answer(x, 401, "");
            return;
        }
        // The TLS handshake has proved that the client has its key, but nobody has looked at who
        // signed it or until when. Knowing exactly this certificate makes up for both.
        String user = USERS.get(plain((String) ((Map<?, ?>) shown.get(0)).get("thumbprint")));
        if (user == null) {
            answer(x, 403, "");
            return;
        }
        x.getResponseHeaders().set("Content-Type", "application/json");
        answer(x, 200, BinaryData.fromObject(Map.of("userId", user, "groups", List.of("drills"))).toString());
    }

    static void answer(HttpExchange x, int status, String body) throws IOException {
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        x.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
        if (bytes.length > 0) {
            x.getResponseBody().write(bytes);
        }
        x.close();
    }
}
