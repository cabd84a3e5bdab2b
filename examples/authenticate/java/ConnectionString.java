import java.util.Map;

import com.azure.core.http.rest.RequestOptions;
import com.azure.core.util.BinaryData;
import com.azure.messaging.webpubsub.WebPubSubServiceClient;
import com.azure.messaging.webpubsub.WebPubSubServiceClientBuilder;
import com.azure.messaging.webpubsub.models.WebPubSubContentType;

/**
 * An application server with a connection string. The key in it opens everything, so
 * the string never leaves the server; in return nothing else is needed.
 */
public class ConnectionString {
    static final String CONNECTION_STRING = System.getenv().getOrDefault("CONNECTION_STRING",
        "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;");

    public static void main(String[] args) {
        WebPubSubServiceClient service =
            new WebPubSubServiceClientBuilder().connectionString(CONNECTION_STRING).hub("chat").buildClient();

        // Send to everybody in the hub, and to one user on all of her connections.
        String json = BinaryData.fromObject(Map.of("text", "hello, everybody")).toString();
        service.sendToAll(json, WebPubSubContentType.APPLICATION_JSON);
        service.sendToUser("ann", "hello, ann", WebPubSubContentType.TEXT_PLAIN);

        // Look at connections and change what they may do, here: what they hear.
        boolean here = service.userExistsWithResponse("ann", null).getValue();
        System.out.println("ann is here: " + here);
        if (here) { // who is not connected is not found
            service.addUserToGroupWithResponse("news", "ann", null);
        }
        service.sendToGroup("news", "hello, readers", WebPubSubContentType.TEXT_PLAIN);

        // End them.
        service.closeUserConnectionsWithResponse("bo", new RequestOptions().addQueryParam("reason", "it is late"));
        System.out.println("bo is here: " + service.userExistsWithResponse("bo", null).getValue());
        System.exit(0); // the SDK's threads would go on
    }
}
