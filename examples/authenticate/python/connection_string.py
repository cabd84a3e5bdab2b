"""An application server with a connection string. The key in it opens everything, so
the string never leaves the server; in return nothing else is needed."""

import os

from azure.messaging.webpubsubservice import WebPubSubServiceClient

CONNECTION_STRING = os.environ.get(
    "CONNECTION_STRING",
    "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;",
)

service = WebPubSubServiceClient.from_connection_string(CONNECTION_STRING, hub="chat")

# Send to everybody in the hub, and to one user on all of her connections.
service.send_to_all({"text": "hello, everybody"})
service.send_to_user("ann", "hello, ann", content_type="text/plain")

# Look at connections and change what they may do, here: what they hear.
here = service.user_exists("ann")
print("ann is here:", here)
if here:  # who is not connected is not found
    service.add_user_to_group("news", "ann")
service.send_to_group("news", "hello, readers", content_type="text/plain")

# End them.
service.close_user_connections("bo", reason="it is late")
print("bo is here:", service.user_exists("bo"))
