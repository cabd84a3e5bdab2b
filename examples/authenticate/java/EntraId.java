import java.time.Duration;

import com.azure.core.credential.TokenCredential;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.GetClientAccessTokenOptions;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;

/**
 * An application server that Entra ID vouches for: it has no key of the node's, and may do
 * what the role says that the node's settings assign to it.
 */
public class EntraId {
    public static void main(String[] args) {
        // https only: the SDK sends no token over plain HTTP.
        WebPubSubServiceClient service = new WebPubSubServiceClientBuilder()
            .endpoint(System.getenv().getOrDefault("ENDPOINT", "https://localhost:8080"))
            .credential(credential())
            .hub("chat")
            .buildClient();
        service.sendToAll("hello from a server without a key", WebPubSubContentType.TEXT_PLAIN);

        // Without a key the server cannot sign a client's token. It asks the node to.
        String url = service.getClientAccessToken(new GetClientAccessTokenOptions()
            .setUserId("ann")
            .setExpiresAfter(Duration.ofMinutes(5))).getUrl();
        System.out.println("ann may connect with " + url);
        System.exit(0); // the SDK's threads would go on
    }

    /**
     * Takes what it finds: a managed identity, a workload identity, who is logged in on this
     * machine, or a client secret in AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET. Any
     * other TokenCredential will do as well. An authority of your own, in AZURE_AUTHORITY_HOST,
     * is not in Microsoft's list, so there it must not be looked up.
     */
    static TokenCredential credential() {
        DefaultAzureCredentialBuilder builder = new DefaultAzureCredentialBuilder();
        if (System.getenv("AZURE_AUTHORITY_HOST") != null) {
            builder.disableInstanceDiscovery();
        }
        return builder.build();
    }
}
