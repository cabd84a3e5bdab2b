"""What the suites share: clients for the node that go test started, and inboxes
that let a test wait for what a client receives instead of sleeping."""

import json
import logging
import os
import queue
import threading
import unittest

import websocket
from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import CallbackType, WebPubSubProtocolType
from azure.messaging.webpubsubservice import WebPubSubServiceClient

CONNECTION_STRING = os.environ["FANFARE_CONNECTION_STRING"]
ENDPOINT = os.environ["FANFARE_ENDPOINT"]
KEY = os.environ["FANFARE_KEY"]
logging.disable(logging.WARNING)  # the SDK warns of each ordinary end

ANYTHING = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"]


def service(hub, connection_string=CONNECTION_STRING):
    return WebPubSubServiceClient.from_connection_string(connection_string, hub=hub)


def take(inbox, what):
    """Returns the oldest item of an inbox, waiting for it at most a minute."""
    try:
        return inbox.get(timeout=60)
    except queue.Empty:
        raise AssertionError(f"waited a minute for {what} and saw nothing") from None


def plain(data):
    return list(data) if isinstance(data, (bytes, bytearray, memoryview)) else data


class Client:
    """An SDK client. The SDK calls each listener on a thread of its own, so what
    it hands out has no order; received() therefore sorts."""

    def __init__(self, hub, query="", **token):
        url = service(hub).get_client_access_token(**token)["url"] + query
        self.hub = hub
        self.inbox, self.ended, connected = queue.Queue(), queue.Queue(), queue.Queue()
        self.sdk = WebPubSubClient(
            url,
            protocol_type=WebPubSubProtocolType.JSON,
            reconnect_retry_total=0,
            message_retry_total=0,  # a refusal is shown at once, not after three more tries
            # The SDK begins to wait after it has sent. An answer that was quicker is
            # not lost, but noticed only when the wait is over.
            start_timeout=5,
            ack_timeout=5,
        )
        self.sdk.subscribe(CallbackType.CONNECTED, connected.put)
        self.sdk.subscribe(CallbackType.DISCONNECTED, lambda e: self.ended.put(e.message))
        self.sdk.subscribe(CallbackType.SERVER_MESSAGE, lambda e: self.inbox.put(("server", str(e.data_type), plain(e.data))))
        self.sdk.subscribe(CallbackType.GROUP_MESSAGE, lambda e: self.inbox.put((f"group {e.group}", str(e.data_type), plain(e.data))))
        self.sdk.open()
        args = take(connected, "the connected message")
        self.id, self.user = args.connection_id, args.user_id

    def received(self, count):
        return sorted((take(self.inbox, f"message {n + 1} of {count}") for n in range(count)), key=repr)

    def close(self):
        self.sdk.close()


class Wire:
    """A plain WebSocket that speaks the JSON subprotocol: what it receives has an order."""

    def __init__(self, hub, **token):
        url = service(hub).get_client_access_token(**token)["url"]
        self.hub = hub
        self.ws = websocket.create_connection(url, subprotocols=["json.webpubsub.azure.v1"], timeout=60)
        self.id = self.read()["connectionId"]

    def read(self):
        return json.loads(self.ws.recv())

    def until_now(self):
        """Returns all that the connection was sent before this call: it has one
        last message sent, which what was answered before cannot overtake."""
        service(self.hub).send_to_connection(self.id, "END", content_type="text/plain")
        seen = []
        while (m := self.read())["data"] != "END":
            seen.append((f"group {m['group']}" if m["from"] == "group" else "server", m["dataType"], m["data"]))
        return seen

    def close(self):
        self.ws.close()


class Suite(unittest.TestCase):
    """A test case that closes the clients it opened."""

    maxDiff = None

    def client(self, hub, **token):
        c = Client(hub, **token)
        self.addCleanup(c.close)
        return c

    def wire(self, hub, **token):
        w = Wire(hub, **token)
        self.addCleanup(w.close)
        return w

    def refused(self, status, call):
        """Checks that call is refused with an HTTP status, and returns the error."""
        with self.assertRaises(Exception) as caught:
            call()
        self.assertEqual(getattr(caught.exception, "status_code", None), status, repr(caught.exception))
        return caught.exception
