import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.stream.Collectors;

import com.azure.communication.common.CommunicationUserIdentifier;
import com.azure.communication.identity.CommunicationIdentityClient;
import com.azure.communication.identity.CommunicationIdentityClientBuilder;
import com.azure.communication.identity.models.CommunicationTokenScope;
import com.azure.communication.identity.models.CommunicationUserIdentifierAndToken;
import com.azure.communication.identity.models.GetTokenForTeamsUserOptions;
import com.azure.core.credential.AccessToken;
import com.azure.core.credential.AzureKeyCredential;
import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.exception.HttpResponseException;
import com.azure.core.http.rest.Response;
import com.azure.core.util.Context;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import reactor.core.publisher.Mono;

/** azure-communication-identity: users and their tokens, by an access key and by tokens of Entra ID. */
public final class IdentitySuite {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String KEY = System.getenv("FANFARE_KEY");
    private static final String OWNER = System.getenv("ENTRA_OWNER");
    private static final String PUBSUB = System.getenv("ENTRA_PUBSUB");
    private static final String ANN = System.getenv("ENTRA_USER");
    private static final String CLIENT = System.getenv("ENTRA_CLIENT");
    private static final List<CommunicationTokenScope> CHAT = scopes("chat");
    private static final CommunicationUserIdentifier NOBODY =
        new CommunicationUserIdentifier("8:acs:00000000-0000-4000-8000-000000000000_00000000-0000-4000-8000-000000000000");

    public static void main(String[] args) {
        Check check = new Check();
        for (Map.Entry<String, CommunicationIdentityClient> who : Map.of("an access key", byKey(KEY), "Entra ID", byEntra(new Entra(OWNER))).entrySet()) {
            check.run(who.getKey() + ": a user, with and without a token", () -> users(who.getValue()));
            check.run(who.getKey() + ": tokens of each scope and lifetime", () -> tokens(who.getValue()));
            check.run(who.getKey() + ": tokens that are not to be had", () -> refusals(who.getValue()));
            check.run(who.getKey() + ": revoke, and delete", () -> ends(who.getValue()));
            check.run(who.getKey() + ": a token of Entra ID for a Teams user", () -> exchange(who.getValue()));
        }
        check.run("the secondary key, a connection string, and a wrong key", IdentitySuite::keys);
        check.run("the resource that the SDK asks for", IdentitySuite::resource);
        check.run("who lacks the role", IdentitySuite::roles);
        check.finish();
    }

    private static CommunicationIdentityClientBuilder at() {
        return new CommunicationIdentityClientBuilder().endpoint(System.getenv("IDENTITY_ENDPOINT"));
    }

    private static CommunicationIdentityClient byKey(String key) {
        return at().credential(new AzureKeyCredential(key)).buildClient();
    }

    private static CommunicationIdentityClient byEntra(Entra credential) {
        return at().credential(credential).buildClient();
    }

    private static JsonNode granted(Map<String, String> form) throws Exception {
        String text = form.entrySet().stream()
            .map(e -> e.getKey() + "=" + URLEncoder.encode(e.getValue(), StandardCharsets.UTF_8)).collect(Collectors.joining("&"));
        URI at = URI.create(System.getenv("ENTRA_AUTHORITY") + "/" + System.getenv("ENTRA_TENANT") + "/v2.0/token");
        HttpResponse<String> reply = HttpClient.newHttpClient().send(
            HttpRequest.newBuilder(at).header("Content-Type", "application/x-www-form-urlencoded")
                .POST(HttpRequest.BodyPublishers.ofString(text)).build(),
            HttpResponse.BodyHandlers.ofString());
        Check.equal(200, reply.statusCode(), "the status of the issuer's reply");
        return JSON.readTree(reply.body());
    }

    /** The credential of an application. */
    private static final class Entra implements TokenCredential {
        final List<String> asked = new CopyOnWriteArrayList<>();
        private final String clientId;

        Entra(String clientId) {
            this.clientId = clientId;
        }

        @Override
        public Mono<AccessToken> getToken(TokenRequestContext request) {
            return Mono.fromCallable(() -> {
                asked.addAll(request.getScopes());
                JsonNode got = granted(Map.of("grant_type", "client_credentials", "client_id", clientId,
                    "scope", String.join(" ", request.getScopes())));
                return new AccessToken(got.path("access_token").asText(), OffsetDateTime.now().plusSeconds(got.path("expires_in").asLong()));
            });
        }
    }

    private static List<CommunicationTokenScope> scopes(String... names) {
        List<CommunicationTokenScope> list = new ArrayList<>();
        for (String name : names) {
            list.add(CommunicationTokenScope.fromString(name)); // it has constants for two of them
        }
        return list;
    }

    private static JsonNode claims(String token) throws Exception {
        return JSON.readTree(Base64.getUrlDecoder().decode(token.split("\\.")[1]));
    }

    /** Checks how the SDK shows a refusal: by what was answered, behind words of its own. */
    private static void refused(int status, String code, String message, Check.Case call) throws Exception {
        HttpResponseException e = Check.refused(status, call);
        JsonNode error = JSON.readTree(e.getMessage().substring(e.getMessage().indexOf('{'))).path("error");
        Check.equal(code, error.path("code").asText(), "the code of the error");
        if (!error.path("message").asText().contains(message)) {
            throw new AssertionError("expected " + message + " in the message, saw " + error);
        }
    }

    private static void users(CommunicationIdentityClient identity) throws Exception {
        Response<CommunicationUserIdentifier> bo = identity.createUserWithResponse(Context.NONE);
        Check.equal(201, bo.getStatusCode(), "the status");
        Check.equal(true, bo.getValue().getId().matches("8:acs:[0-9a-f-]{36}_[0-9a-f-]{36}"), bo.getValue().getId() + " is an id");

        Response<CommunicationUserIdentifierAndToken> cy = identity.createUserAndTokenWithResponse(scopes("chat", "voip"), Duration.ofHours(1), Context.NONE);
        Check.equal(201, cy.getStatusCode(), "the status");
        JsonNode c = claims(cy.getValue().getUserToken().getToken());
        Check.equal(cy.getValue().getUser().getId(), "8:" + c.path("skypeid").asText(), "the user of the token");
        Check.equal("chat,voip", c.path("acsScope").asText(), "the scopes of the token");
        Check.equal(3600L, c.path("exp").asLong() - c.path("iat").asLong(), "the life of the token");
    }

    private static void tokens(CommunicationIdentityClient identity) throws Exception {
        CommunicationUserIdentifier user = identity.createUser();
        for (String scope : List.of("chat", "voip")) { // those of the api-version that this SDK speaks
            Response<AccessToken> token = identity.getTokenWithResponse(user, scopes(scope), Context.NONE);
            Check.equal(200, token.getStatusCode(), "the status");
            JsonNode c = claims(token.getValue().getToken());
            Check.equal(scope, c.path("acsScope").asText(), "the scope of the token");
            Check.equal(86400L, c.path("exp").asLong() - c.path("iat").asLong(), "the life of the token");
        }
        for (int minutes : new int[] {60, 61, 1440}) {
            AccessToken token = identity.getToken(user, CHAT, Duration.ofMinutes(minutes));
            JsonNode c = claims(token.getToken());
            Check.equal(minutes * 60L, c.path("exp").asLong() - c.path("iat").asLong(), "the life of the token");
            Check.equal(c.path("exp").asLong(), token.getExpiresAt().toEpochSecond(), "its end as the SDK shows it");
        }
    }

    private static void refusals(CommunicationIdentityClient identity) throws Exception {
        CommunicationUserIdentifier user = identity.createUser();
        for (int minutes : new int[] {59, 1441}) {
            refused(400, "ValidationError", "60 to 1440", () -> identity.getToken(user, CHAT, Duration.ofMinutes(minutes)));
            refused(400, "ValidationError", "60 to 1440", () -> identity.createUserAndToken(CHAT, Duration.ofMinutes(minutes)));
        }
        refused(400, "ValidationError", "expected some of chat, ", () -> identity.getToken(user, List.of()));
        refused(400, "ValidationError", "\"shout\"", () -> identity.getToken(user, scopes("shout")));
    }

    private static void ends(CommunicationIdentityClient identity) throws Exception {
        CommunicationUserIdentifier user = identity.createUser();
        Check.equal(204, identity.revokeTokensWithResponse(user, Context.NONE).getStatusCode(), "the status of revoke");
        identity.getToken(user, CHAT);
        Check.equal(204, identity.deleteUserWithResponse(user, Context.NONE).getStatusCode(), "the status of delete");
        for (CommunicationUserIdentifier gone : List.of(user, NOBODY)) {
            refused(404, "IdentityNotFound", gone.getId(), () -> identity.getToken(gone, CHAT));
            refused(404, "IdentityNotFound", gone.getId(), () -> identity.revokeTokens(gone));
            refused(404, "IdentityNotFound", gone.getId(), () -> identity.deleteUser(gone));
        }
    }

    private static void exchange(CommunicationIdentityClient identity) throws Exception {
        String entra = granted(Map.of("grant_type", "password", "username", ANN, "client_id", CLIENT,
            "scope", "https://auth.msft.communication.azure.com/Teams.ManageCalls")).path("access_token").asText();
        Response<AccessToken> token = identity.getTokenForTeamsUserWithResponse(new GetTokenForTeamsUserOptions(entra, CLIENT, ANN), Context.NONE);
        Check.equal(200, token.getStatusCode(), "the status");
        Check.equal(claims(entra).path("exp").asLong(), token.getValue().getExpiresAt().toEpochSecond(), "the end of the token");
        refused(400, "ValidationError", "appId", () -> identity.getTokenForTeamsUser(new GetTokenForTeamsUserOptions(entra, PUBSUB, ANN)));
        refused(400, "ValidationError", "userId", () -> identity.getTokenForTeamsUser(new GetTokenForTeamsUserOptions(entra, CLIENT, PUBSUB)));
    }

    private static void keys() throws Exception {
        byKey(System.getenv("FANFARE_SECONDARY_KEY")).createUser();
        new CommunicationIdentityClientBuilder()
            .connectionString("endpoint=" + System.getenv("IDENTITY_ENDPOINT") + "/;accesskey=" + KEY).buildClient().createUser();
        CommunicationIdentityClient wrong = byKey(Base64.getEncoder().encodeToString(new byte[32]));
        refused(401, "Denied", "Denied by the resource provider.", wrong::createUser);
    }

    private static void resource() {
        Entra credential = new Entra(OWNER);
        byEntra(credential).createUser();
        Check.equal(List.of("https://communication.azure.com//.default"), credential.asked, "the scopes that the SDK asks for");
    }

    private static void roles() throws Exception {
        for (String who : List.of(PUBSUB, "99999999-0000-4000-8000-000000000009")) {
            CommunicationIdentityClient identity = byEntra(new Entra(who));
            refused(403, "Forbidden", "identity/write", identity::createUser);
            refused(403, "Forbidden", "identity/write", () -> identity.deleteUser(NOBODY));
            refused(403, "Forbidden", "identity/token/action", () -> identity.getToken(NOBODY, CHAT));
            refused(403, "Forbidden", "identity/token/action", () -> identity.revokeTokens(NOBODY));
        }
    }
}
