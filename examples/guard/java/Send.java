import java.util.List;

import com.azure.communication.sms.SmsClient;
import com.azure.communication.sms.SmsClientBuilder;
import com.azure.communication.sms.models.SmsSendResult;
import com.azure.core.credential.TokenCredential;
import com.azure.core.exception.HttpResponseException;
import com.azure.identity.DefaultAzureCredentialBuilder;

/**
 * Sends a text through the service of this example, by its access key or, where there is no
 * CONNECTION_STRING, by a token of Entra ID. It is written for Azure's service. https only: the
 * SDK neither signs nor shows a token over plain HTTP.
 */
public class Send {
    public static void main(String[] args) {
        try {
            for (SmsSendResult r : client().send("+14255550100", List.of("+14255550123", "4255550123"), "hello")) {
                System.out.println((r.isSuccessful() ? "sent" : "not sent") + " to " + r.getTo() + " " + r.getHttpStatusCode());
            }
        } catch (HttpResponseException e) {
            String body = e.getResponse().getBodyAsString().block();
            System.out.println("refused: " + e.getResponse().getStatusCode() + " " + body.replaceAll("(?s).*\"code\":\"([^\"]+)\".*", "$1"));
        }
        System.exit(0); // the SDK's threads would go on
    }

    static SmsClient client() {
        SmsClientBuilder builder = new SmsClientBuilder();
        String connectionString = System.getenv().getOrDefault("CONNECTION_STRING", "");
        if (!connectionString.isEmpty()) {
            return builder.connectionString(connectionString).buildClient();
        }
        return builder.endpoint(System.getenv().getOrDefault("ENDPOINT", "https://localhost:8092")).credential(credential()).buildClient();
    }

    /**
     * Takes what it finds; an authority of your own is not in Microsoft's list, so there it must
     * not be looked up.
     */
    static TokenCredential credential() {
        DefaultAzureCredentialBuilder builder = new DefaultAzureCredentialBuilder();
        if (System.getenv("AZURE_AUTHORITY_HOST") != null) {
            builder.disableInstanceDiscovery();
        }
        return builder.build();
    }
}
