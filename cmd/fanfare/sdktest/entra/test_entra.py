"""The service SDK with a TokenCredential, against a node that accepts no access key."""

import json
import os
import time
import unittest
import urllib.parse
import urllib.request

import websocket
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.messaging.webpubsubservice import WebPubSubServiceClient

ENDPOINT = os.environ["FANFARE_ENDPOINT"]
TOKENS = f"{os.environ['ENTRA_AUTHORITY']}/{os.environ['ENTRA_TENANT']}/v2.0/token"
OWNER, READER = os.environ["ENTRA_OWNER"], os.environ["ENTRA_READER"]


class Credential:
    """Gets tokens by the client credentials grant, as a service does."""

    def __init__(self, client_id):
        self.client_id = client_id

    def get_token(self, *scopes, **_):
        form = {"grant_type": "client_credentials", "client_id": self.client_id, "scope": " ".join(scopes)}
        with urllib.request.urlopen(TOKENS, urllib.parse.urlencode(form).encode(), timeout=60) as reply:
            got = json.load(reply)
        return AccessToken(got["access_token"], int(time.time()) + got["expires_in"])


def service(client_id):
    return WebPubSubServiceClient(ENDPOINT, "chat", Credential(client_id))


class Entra(unittest.TestCase):
    def refused(self, status, call):
        with self.assertRaises(HttpResponseError) as caught:
            call()
        self.assertEqual(caught.exception.status_code, status)
        return str(caught.exception)

    def test_an_owner_generates_a_client_token_and_what_it_sends_arrives(self):
        chat = service(OWNER)
        url = chat.get_client_access_token(user_id="ann", groups=["room"], minutes_to_expire=5)["url"]
        ann = websocket.create_connection(url, timeout=60)
        self.addCleanup(ann.close)
        chat.send_to_all("to all", content_type="text/plain")
        self.assertEqual(ann.recv(), "to all")
        chat.send_to_group("room", "to room", content_type="text/plain")
        self.assertEqual(ann.recv(), "to room")
        self.assertTrue(chat.user_exists("ann"))

    def test_a_reader_reads_and_is_told_what_it_lacks_for_the_rest(self):
        chat = service(READER)
        self.assertFalse(chat.user_exists("nobody"))
        said = self.refused(403, lambda: chat.send_to_all("no", content_type="text/plain"))
        self.assertIn("Microsoft.SignalRService/WebPubSub/hub/send/action permission is required", said)
        self.refused(403, chat.get_client_access_token)

    def test_an_access_key(self):
        chat = WebPubSubServiceClient(ENDPOINT, "chat", AzureKeyCredential(os.environ["FANFARE_KEY"]))
        self.refused(401, lambda: chat.send_to_all("no", content_type="text/plain"))


if __name__ == "__main__":
    unittest.main()
