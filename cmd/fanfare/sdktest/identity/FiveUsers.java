import com.azure.communication.identity.CommunicationIdentityClient;
import com.azure.communication.identity.CommunicationIdentityClientBuilder;
import com.azure.core.credential.AzureKeyCredential;

/** Makes five users, one after the other. */
public final class FiveUsers {
    public static void main(String[] args) {
        CommunicationIdentityClient identity = new CommunicationIdentityClientBuilder()
            .endpoint(System.getenv("IDENTITY_ENDPOINT")).credential(new AzureKeyCredential(System.getenv("FANFARE_KEY"))).buildClient();
        for (int n = 0; n < 5; n++) {
            identity.createUser();
        }
        System.out.println("made five users");
        System.exit(0); // the threads of its HTTP client would live on for a while
    }
}
