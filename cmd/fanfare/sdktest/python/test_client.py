"""azure-messaging-webpubsubclient: what clients do, and what they receive."""

import io
import unittest

from azure.messaging.webpubsubclient import WebPubSubClient
from azure.messaging.webpubsubclient.models import OpenClientError, SendMessageError, WebPubSubProtocolType

from fanfare import ANYTHING, Suite, service, take

TEXT = {"content_type": "text/plain"}


class Groups(Suite):
    def test_text_json_and_binary_in_a_group(self):
        hub = "py_talk"
        ann = self.client(hub, user_id="ann", roles=ANYTHING)
        bo = self.client(hub, user_id="bo", roles=ANYTHING)
        self.assertEqual((ann.user, bo.user), ("ann", "bo"))
        for c in (ann, bo):
            c.sdk.join_group("room")
        ann.sdk.send_to_group("room", "hi 👋", "text")
        ann.sdk.send_to_group("room", {"n": 1}, "json")
        ann.sdk.send_to_group("room", memoryview(b"\x00\xff"), "binary")
        want = sorted([("group room", "text", "hi 👋"), ("group room", "json", {"n": 1}), ("group room", "binary", [0, 255])], key=repr)
        self.assertEqual(ann.received(3), want)
        self.assertEqual(bo.received(3), want)

        bo.sdk.leave_group("room")
        ann.sdk.send_to_group("room", "to nobody", "text", no_echo=True)
        ann.sdk.send_to_group("room", "to myself", "text", ack=False)
        self.assertEqual(ann.received(1), [("group room", "text", "to myself")])
        service(hub).send_to_connection(bo.id, "END", **TEXT)
        self.assertEqual(bo.received(1), [("server", "text", "END")])

    def test_what_the_app_server_sends(self):
        hub, s = "py_server", service("py_server")
        ann = self.client(hub, user_id="ann", groups=["room"])
        s.send_to_user("ann", {"a": 1})
        s.send_to_group("room", "hi", **TEXT)
        s.send_to_all(io.BytesIO(b"\x05"), content_type="application/octet-stream")
        want = [("server", "json", {"a": 1}), ("group room", "text", "hi"), ("server", "binary", [5])]
        self.assertEqual(ann.received(3), sorted(want, key=repr))


class Refusals(Suite):
    def failed(self, name, call):
        with self.assertRaises(SendMessageError) as caught:
            call()
        self.assertEqual(caught.exception.error_detail.name, name, caught.exception.error_detail.message)

    def test_without_a_role(self):
        ann = self.client("py_roles", roles=["webpubsub.joinLeaveGroups.a.*"])
        ann.sdk.join_group("a.b")
        self.failed("Forbidden", lambda: ann.sdk.join_group("a.b.c"))
        self.failed("Forbidden", lambda: ann.sdk.leave_group("other"))
        self.failed("Forbidden", lambda: ann.sdk.send_to_group("a.b", "hi", "text"))

    def test_an_event_without_a_handler(self):
        ann = self.client("py_events")
        self.failed("InternalServerError", lambda: ann.sdk.send_event("order", "x", "text"))
        self.assertTrue(ann.sdk.is_connected())

    def test_a_repeated_ack_id_is_a_success_without_effect(self):
        ann = self.client("py_acks", roles=ANYTHING)
        ann.sdk.join_group("room", ack_id=9)
        ann.sdk.leave_group("room", ack_id=9)
        ann.sdk.send_to_group("room", "still a member", "text")
        self.assertEqual(ann.received(1), [("group room", "text", "still a member")])

    def test_a_refused_connection(self):
        token = service("py_roles").get_client_access_token(user_id="ann")
        c = WebPubSubClient(token["url"] + "x", protocol_type=WebPubSubProtocolType.JSON, reconnect_retry_total=0, start_timeout=5)
        with self.assertRaises(OpenClientError) as caught:
            c.open()
        self.assertIn("401", str(caught.exception))


class Ends(Suite):
    def test_the_app_server_closes(self):
        ann = self.client("py_ended")
        service("py_ended").close_connection(ann.id, reason="maintenance")
        self.assertEqual(take(ann.ended, "the end"), "Application server closed the connection. Reason: maintenance")

    def test_the_client_closes(self):
        ann = self.client("py_left", user_id="ann", groups=["room"])
        bo = self.client("py_left", user_id="bo", groups=["room"])
        ann.close()
        while service("py_left").connection_exists(ann.id):
            pass  # each question is a round trip; go test ends a suite that never gets its answer
        self.assertFalse(service("py_left").user_exists("ann"))
        service("py_left").send_to_group("room", "hi", **TEXT)
        self.assertEqual(bo.received(1), [("group room", "text", "hi")])


class Events(Suite):
    """Events of the hub that the official express middleware handles."""

    def test_answers(self):
        ann = self.client("events", user_id="ann")
        ann.sdk.send_event("echo", "hi", "text")
        ann.sdk.send_event("echo", {"a": 1}, "json")
        ann.sdk.send_event("echo", memoryview(b"\x01"), "binary")
        want = [("server", "text", "hi"), ("server", "json", {"a": 1}), ("server", "binary", [1])]
        self.assertEqual(ann.received(3), sorted(want, key=repr))
        with self.assertRaises(SendMessageError):
            ann.sdk.send_event("refuse", "x", "text")

    def test_denied(self):
        with self.assertRaises(OpenClientError):
            self.client("events", user_id="eve", query="&case=deny")


if __name__ == "__main__":
    unittest.main()
