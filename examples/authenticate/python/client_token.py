"""A client with an access token. The server, which has the key, makes a URL with a token
for one user, a few roles and an hour; the client, which has the URL and nothing else,
connects with it."""

import logging
import os
import threading

from azure.messaging.webpubsubclient import WebPubSubClient, WebPubSubClientCredential
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubDataType
from azure.messaging.webpubsubservice import WebPubSubServiceClient

CONNECTION_STRING = os.environ.get(
    "CONNECTION_STRING",
    "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;",
)


def negotiate(user):
    """What the server does when somebody asks for a URL, once it knows who that is. The
    token is signed here, without asking the node."""
    service = WebPubSubServiceClient.from_connection_string(CONNECTION_STRING, hub="chat")
    return service.get_client_access_token(
        user_id=user,
        roles=["webpubsub.joinLeaveGroup.room", "webpubsub.sendToGroup.room"],  # and nothing but this group
        minutes_to_expire=60,
    )["url"]


# What the client does, anywhere. It asks for a URL each time that it connects: in an
# application, by a request to the server.
logging.getLogger("azure.messaging.webpubsubclient").setLevel(logging.ERROR)  # it warns of each ordinary end
heard = threading.Event()


def listen(e):
    print("received:", e.data)
    heard.set()


client = WebPubSubClient(
    WebPubSubClientCredential(lambda: negotiate("ann")),
    # The SDK begins to wait for an answer after it has asked. One that was quicker it
    # notices when the wait is over, which would be half a minute.
    start_timeout=3,
    ack_timeout=3,
)
client.subscribe(CallbackType.CONNECTED, lambda e: print("connected as", e.user_id))
client.subscribe(CallbackType.GROUP_MESSAGE, listen)
with client:
    client.join_group("room")
    client.send_to_group("room", "hello from ann", WebPubSubDataType.TEXT, no_echo=True)
    heard.wait()
