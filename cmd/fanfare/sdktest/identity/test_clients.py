"""User access tokens as clients' credentials: azure-messaging-webpubsubclient. What scopes
are worth is in the settings of the node; see clients.test.js."""

import os
import queue
import unittest

from azure.communication.identity import CommunicationIdentityClient
from azure.core.credentials import AzureKeyCredential
from azure.messaging.webpubsubclient import WebPubSubClient, WebPubSubClientCredential
from azure.messaging.webpubsubclient.models import CallbackType, OpenClientError, SendMessageError, WebPubSubProtocolType

from fanfare import ENDPOINT, KEY, service, take

HUB = "talk"
IDENTITY = CommunicationIdentityClient(os.environ["IDENTITY_ENDPOINT"], AzureKeyCredential(KEY))


class Users(unittest.TestCase):
    def open(self, token, hub=HUB):
        url = f"{ENDPOINT.replace('http', 'ws')}/client/hubs/{hub}?access_token={token}"
        c = WebPubSubClient(
            WebPubSubClientCredential(lambda: url),
            protocol_type=WebPubSubProtocolType.JSON,
            reconnect_retry_total=0,
            message_retry_total=0,
            # The SDK begins to wait after it has sent; see Client of fanfare.py.
            start_timeout=3,
            ack_timeout=3,
        )
        c.inbox, c.ended, connected = queue.Queue(), queue.Queue(), queue.Queue()
        c.subscribe(CallbackType.CONNECTED, connected.put)
        c.subscribe(CallbackType.DISCONNECTED, lambda e: c.ended.put(e.message))
        c.subscribe(CallbackType.GROUP_MESSAGE, lambda e: c.inbox.put((e.group, e.from_user_id, e.data)))
        c.subscribe(CallbackType.SERVER_MESSAGE, lambda e: c.inbox.put(("server", e.data)))
        c.open()
        self.addCleanup(c.close)
        c.user = take(connected, "the connected message").user_id
        return c

    def refused(self, status, call):
        with self.assertRaises(OpenClientError) as caught:
            call()
        self.assertIn(str(status), str(caught.exception))

    def test_a_user_is_known_by_its_id_and_does_what_its_scopes_are_worth(self):
        (ann, chat), (bo, join) = IDENTITY.create_user_and_token(["chat"]), IDENTITY.create_user_and_token(["chat.join"])
        speaker, listener = self.open(chat.token), self.open(join.token)
        self.assertEqual((speaker.user, listener.user), (ann.raw_id, bo.raw_id))
        listener.join_group("room")
        speaker.send_to_group("room", "hi", "text")
        self.assertEqual(take(listener.inbox, "a message"), ("room", ann.raw_id, "hi"))
        with self.assertRaises(SendMessageError) as caught:
            listener.send_to_group("room", "hi", "text")
        self.assertEqual(caught.exception.error_detail.name, "Forbidden")
        service(HUB).send_to_user(bo.raw_id, "to you", content_type="text/plain")
        self.assertEqual(take(listener.inbox, "a message"), ("server", "to you"))

    def test_hubs_that_no_scope_of_a_token_opens(self):
        for scope, hub in [("chat", "elsewhere"), ("voip", HUB)]:
            _, token = IDENTITY.create_user_and_token([scope])
            self.refused(403, lambda: self.open(token.token, hub))

    def test_revoked_and_deleted(self):
        for end in (IDENTITY.revoke_tokens, IDENTITY.delete_user):
            ann, token = IDENTITY.create_user_and_token(["chat"])
            c = self.open(token.token)
            end(ann)
            self.refused(401, lambda: self.open(token.token))
            self.assertIn("The access tokens of the user were revoked.", take(c.ended, "the end"))


if __name__ == "__main__":
    unittest.main()
