import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

import com.azure.core.credential.AccessToken;
import com.azure.core.credential.AzureKeyCredential;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.exception.HttpResponseException;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import reactor.core.publisher.Mono;

/** The service SDK with a TokenCredential, against a node that accepts no access key. */
public final class EntraSuite {
    private static final WebPubSubContentType TEXT = WebPubSubContentType.TEXT_PLAIN;
    private static final String NOBODY = "99999999-0000-4000-8000-000000000009";

    public static void main(String[] args) {
        Check check = new Check();
        check.run("an owner generates a client token, and what it sends arrives", EntraSuite::owner);
        check.run("a reader reads, and is told what it lacks for the rest", EntraSuite::reader);
        check.run("an application without a role, and an access key", EntraSuite::others);
        check.finish();
    }

    /** Gets tokens by the client credentials grant, as a service does. */
    private static final class Credential implements TokenCredential {
        private static final ObjectMapper JSON = new ObjectMapper();

        final List<List<String>> asked = new CopyOnWriteArrayList<>();
        private final String clientId;

        Credential(String clientId) {
            this.clientId = clientId;
        }

        @Override
        public Mono<AccessToken> getToken(TokenRequestContext request) {
            return Mono.fromCallable(() -> {
                asked.add(request.getScopes());
                String form = "grant_type=client_credentials&client_id=" + clientId
                    + "&scope=" + URLEncoder.encode(String.join(" ", request.getScopes()), StandardCharsets.UTF_8);
                URI at = URI.create(System.getenv("ENTRA_AUTHORITY") + "/" + System.getenv("ENTRA_TENANT") + "/v2.0/token");
                HttpResponse<String> reply = HttpClient.newHttpClient().send(
                    HttpRequest.newBuilder(at).header("Content-Type", "application/x-www-form-urlencoded")
                        .POST(HttpRequest.BodyPublishers.ofString(form)).build(),
                    HttpResponse.BodyHandlers.ofString());
                Check.equal(200, reply.statusCode(), "the status of the issuer's reply");
                JsonNode got = JSON.readTree(reply.body());
                return new AccessToken(got.path("access_token").asText(), OffsetDateTime.now().plusSeconds(got.path("expires_in").asLong()));
            });
        }
    }

    private static WebPubSubServiceClientBuilder chat() {
        return new WebPubSubServiceClientBuilder().endpoint(System.getenv("FANFARE_ENDPOINT")).hub("chat");
    }

    private static WebPubSubServiceClient service(String clientId) {
        return chat().credential(new Credential(clientId)).buildClient();
    }

    private static void owner() throws Exception {
        Credential credential = new Credential(System.getenv("ENTRA_OWNER"));
        WebPubSubServiceClient chat = chat().credential(credential).buildClient();
        String url = chat.getClientAccessToken(new GetClientAccessTokenOptions().setUserId("ann").addGroup("room")).getUrl();
        Check.equal(List.of(List.of("https://webpubsub.azure.com/.default")), credential.asked, "the scopes that the SDK asks for");
        try (Wire ann = new Wire(chat, url)) {
            Check.equal("ann", ann.user, "the user of the generated token");
            chat.sendToAll("to all", TEXT);
            chat.sendToUser("ann", "to ann", TEXT);
            chat.sendToGroup("room", "to room", TEXT);
            Check.equal(List.of("server text \"to all\"", "server text \"to ann\"", "group room text \"to room\""), ann.untilNow(), "what ann received");
            Check.equal(true, chat.userExistsWithResponse("ann", null).getValue(), "ann exists");
        }
    }

    /** Checks that a call is refused for want of a role that includes the action. */
    private static void lacks(String action, Check.Case call) throws Exception {
        HttpResponseException e = Check.refused(403, call);
        if (!e.getMessage().contains("Microsoft.SignalRService/WebPubSub/" + action + " permission is required")) {
            throw new AssertionError("expected " + action + " in the message, saw " + e.getMessage());
        }
    }

    private static void reader() throws Exception {
        WebPubSubServiceClient chat = service(System.getenv("ENTRA_READER"));
        Check.equal(false, chat.userExistsWithResponse("nobody", null).getValue(), "nobody exists");
        lacks("hub/send/action", () -> chat.sendToAll("no", TEXT));
        lacks("group/send/action", () -> chat.sendToGroup("room", "no", TEXT));
        lacks("clientConnection/generateToken/action", () -> chat.getClientAccessToken(new GetClientAccessTokenOptions()));
        lacks("clientConnection/write", () -> chat.closeAllConnectionsWithResponse(null));
    }

    private static void others() throws Exception {
        lacks("hub/send/action", () -> service(NOBODY).sendToAll("no", TEXT));
        WebPubSubServiceClient byKey = chat().credential(new AzureKeyCredential(System.getenv("FANFARE_KEY"))).buildClient();
        Check.refused(401, () -> byKey.sendToAll("no", TEXT));
    }
}
