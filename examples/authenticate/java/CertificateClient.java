import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.security.KeyStore;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.CountDownLatch;

import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

import com.azure.core.util.BinaryData;

/**
 * A client that proves itself by a certificate in the TLS handshake, and by nothing else:
 * its URL holds no token. Who judges the certificate is up to the hub.
 */
public class CertificateClient {
    public static void main(String[] args) throws Exception {
        String url = System.getenv().getOrDefault("URL", "wss://localhost:8080/client/hubs/guarded");
        CountDownLatch done = new CountDownLatch(1);
        WebSocket client = null;
        try {
            client = HttpClient.newBuilder().sslContext(certificate()).build().newWebSocketBuilder()
                .subprotocols("json.webpubsub.azure.v1")
                .buildAsync(URI.create(url), new WebSocket.Listener() {
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
        } catch (CompletionException e) {
            if (e.getCause() instanceof WebSocketHandshakeException refusal) {
                System.err.println("refused: " + refusal.getResponse().statusCode());
                System.exit(1);
            }
            throw e;
        }
        done.await();
        client.sendClose(WebSocket.NORMAL_CLOSURE, "").join();
    }

    /** What the client shows: the key and the certificate in a PKCS #12 file, or nothing without one. */
    static SSLContext certificate() throws Exception {
        String file = System.getenv("P12_FILE");
        if (file == null) {
            return SSLContext.getDefault();
        }
        char[] password = System.getenv().getOrDefault("P12_PASSWORD", "").toCharArray();
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(KeyStore.getInstance(new File(file), password), password);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), null, null); // the node is trusted as any other host would be
        return tls;
    }
}
