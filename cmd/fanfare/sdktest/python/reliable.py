"""A client of the reliable protocol, as the SDK makes it by default, that prints
what it is handed until it is told "bye". Only "connected", "joined", messages and
"stopped" are what a client sees that loses nothing."""

import queue
import threading

import websocket
from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, SendMessageError

from fanfare import service, take


def lost(args):
    """The SDK's thread that acknowledges dies of a lost connection; the next one gets another."""
    if not issubclass(args.exc_type, (OSError, SendMessageError, websocket.WebSocketException)):
        lines.put(f"thread: {args.exc_value!r}")


threading.excepthook = lost
connected, lines = queue.Queue(), queue.Queue()


def message(e):
    lines.put("bye" if e.data == "bye" else f"got {e.sequence_id} {e.data}")


url = service("reliable").get_client_access_token(roles=["webpubsub.joinLeaveGroup.room"])["url"]
client = WebPubSubClient(url, start_timeout=5, ack_timeout=5)  # fanfare.Client says why
client.subscribe(CallbackType.CONNECTED, lambda e: connected.put(e) or lines.put("connected"))
client.subscribe(CallbackType.GROUP_MESSAGE, message)
client.subscribe(CallbackType.DISCONNECTED, lambda e: lines.put(f"disconnected: {e.message}"))
client.open()
take(connected, "the connected message")
client.join_group("room")
lines.put("joined")
while (line := lines.get()) != "bye":
    print(line, flush=True)
client.close()
print("stopped", flush=True)
