"""An application server that Entra ID vouches for: it has no key of the node's, and may do
what the role says that the node's settings assign to it."""

import os

from azure.identity import DefaultAzureCredential
from azure.messaging.webpubsubservice import WebPubSubServiceClient

# Takes what it finds: a managed identity, a workload identity, who is logged in on this
# machine, or a client secret in AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET. Any
# other TokenCredential will do as well. An authority of your own, in AZURE_AUTHORITY_HOST,
# is not in Microsoft's list, so there it must not be looked up.
credential = DefaultAzureCredential(disable_instance_discovery="AZURE_AUTHORITY_HOST" in os.environ)

# https only: the SDK sends no token over plain HTTP.
service = WebPubSubServiceClient(os.environ.get("ENDPOINT", "https://localhost:8080"), "chat", credential)
service.send_to_all("hello from a server without a key", content_type="text/plain")

# Without a key the server cannot sign a client's token. It asks the node to.
url = service.get_client_access_token(user_id="ann", minutes_to_expire=5)["url"]
print("ann may connect with", url)
