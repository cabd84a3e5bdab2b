import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

import com.azure.core.util.BinaryData;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;

/**
 * A chat in one page of code: this server hands out client URLs, decides who may
 * connect, and passes on what people say. The node keeps the connections.
 */
public class Server {
    static final String CONNECTION_STRING = System.getenv().getOrDefault("CONNECTION_STRING",
        "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;");
    static final Path PAGE = Path.of(System.getenv().getOrDefault("PAGE", "../index.html"));
    static final WebPubSubServiceClient SERVICE =
        new WebPubSubServiceClientBuilder().connectionString(CONNECTION_STRING).hub("chat").buildClient();

    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "3000"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", x -> answer(x, 200, "text/html; charset=utf-8", Files.readAllBytes(PAGE)));
        server.createContext("/negotiate", x -> {
            String id = URLDecoder.decode(x.getRequestURI().getRawQuery().replaceFirst("^id=", ""), StandardCharsets.UTF_8);
            String url = SERVICE.getClientAccessToken(new GetClientAccessTokenOptions().setUserId(id)).getUrl();
            answer(x, 200, "application/json", BinaryData.fromObject(Map.of("url", url)).toBytes());
        });
        server.createContext("/eventhandler", x -> answer(x, event(x), "text/plain", new byte[0]));
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }

    static int event(HttpExchange x) throws IOException {
        if (x.getRequestMethod().equals("OPTIONS")) { // the node asks whether it may call us at all
            x.getResponseHeaders().set("WebHook-Allowed-Origin", header(x, "WebHook-Request-Origin"));
            return 200;
        }
        if (!signed(header(x, "ce-connectionId"), header(x, "ce-signature"))) {
            return 401;
        }
        String user = header(x, "ce-userId");
        switch (header(x, "ce-type")) {
            case "azure.webpubsub.sys.connect" -> {
                if (user.isEmpty()) {
                    return 401; // a chat needs names
                }
            }
            case "azure.webpubsub.sys.connected" -> say("", user + " is here");
            case "azure.webpubsub.sys.disconnected" -> say("", user + " has left");
            case "azure.webpubsub.user.message" ->
                say(user, new String(x.getRequestBody().readAllBytes(), StandardCharsets.UTF_8));
            default -> { }
        }
        return 204;
    }

    static void say(String from, String text) {
        String json = BinaryData.fromObject(Map.of("from", from, "text", text)).toString();
        SERVICE.sendToAll(json, WebPubSubContentType.APPLICATION_JSON);
    }

    /** Only the node knows the key, so only the node can have signed the connection's id. */
    static boolean signed(String connectionId, String signatures) {
        try {
            Matcher key = Pattern.compile("AccessKey=([^;]+)").matcher(CONNECTION_STRING);
            key.find();
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key.group(1).getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
            byte[] want = ("sha256=" + HexFormat.of().formatHex(mac.doFinal(connectionId.getBytes(StandardCharsets.UTF_8)))).getBytes(StandardCharsets.UTF_8);
            for (String s : signatures.split(",")) {
                if (MessageDigest.isEqual(want, s.getBytes(StandardCharsets.UTF_8))) {
                    return true;
                }
            }
            return false;
        } catch (GeneralSecurityException e) {
            throw new IllegalStateException(e);
        }
    }

    static String header(HttpExchange x, String name) {
        String value = x.getRequestHeaders().getFirst(name);
        return value == null ? "" : value;
    }

    static void answer(HttpExchange x, int status, String type, byte[] body) throws IOException {
        x.getResponseHeaders().set("Content-Type", type);
        x.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        if (body.length > 0) {
            x.getResponseBody().write(body);
        }
        x.close();
    }
}
