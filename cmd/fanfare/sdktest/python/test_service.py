"""azure-messaging-webpubsubservice: every method, and what clients see of it."""

import io
import unittest

import websocket
from azure.core.credentials import AzureKeyCredential
from azure.messaging.webpubsubservice import WebPubSubServiceClient

from fanfare import ENDPOINT, KEY, Suite, service

TEXT = {"content_type": "text/plain"}
BINARY = {"content_type": "application/octet-stream"}


class Sends(Suite):
    def test_to_all(self):
        hub, s = "py_all", service("py_all")
        ann, bo = self.wire(hub, user_id="ann"), self.wire(hub, user_id="bo")
        s.send_to_all("grüße 👋", **TEXT)
        s.send_to_all({"n": [1, None]})
        s.send_to_all("a JSON string")
        s.send_to_all(io.BytesIO(b"\x00\x01\xff"), **BINARY)
        s.send_to_all("not ann", excluded=[ann.id, "ghost"], **TEXT)
        s.send_to_all("ann alone", filter="userId eq 'ann'", params={"messageTtlSeconds": 30}, **TEXT)
        shared = [
            ("server", "text", "grüße 👋"),
            ("server", "json", {"n": [1, None]}),
            ("server", "json", "a JSON string"),
            ("server", "binary", "AAH/"),
        ]
        self.assertEqual(ann.until_now(), shared + [("server", "text", "ann alone")])
        self.assertEqual(bo.until_now(), shared + [("server", "text", "not ann")])

    def test_to_group(self):
        hub, s = "py_group", service("py_group")
        ann = self.wire(hub, user_id="ann", groups=["the room"])
        bo = self.wire(hub, user_id="bo", groups=["the room"])
        cy = self.wire(hub, user_id="cy")
        s.send_to_group("the room", "hi", **TEXT)
        s.send_to_group("the room", {"a": 1}, excluded=[bo.id])
        s.send_to_group("the room", io.BytesIO(b"\x07"), filter="startswith(userId, 'b')", **BINARY)
        self.assertEqual(ann.until_now(), [("group the room", "text", "hi"), ("group the room", "json", {"a": 1})])
        self.assertEqual(bo.until_now(), [("group the room", "text", "hi"), ("group the room", "binary", "Bw==")])
        self.assertEqual(cy.until_now(), [])

    def test_to_user(self):
        hub, s = "py_user", service("py_user")
        phone = self.wire(hub, user_id="ann", groups=["phones"])
        desk = self.wire(hub, user_id="ann")
        bo = self.wire(hub, user_id="bo")
        s.send_to_user("ann", "hi", **TEXT)
        s.send_to_user("ann", {"ring": True}, filter="'phones' in groups")
        s.send_to_user("ann", io.BytesIO(b"\x01\x02"), **BINARY)
        s.send_to_user("ghost", "lost", **TEXT)
        self.assertEqual(phone.until_now(), [("server", "text", "hi"), ("server", "json", {"ring": True}), ("server", "binary", "AQI=")])
        self.assertEqual(desk.until_now(), [("server", "text", "hi"), ("server", "binary", "AQI=")])
        self.assertEqual(bo.until_now(), [])

    def test_to_connection(self):
        hub, s = "py_connection", service("py_connection")
        ann, bo = self.wire(hub), self.wire(hub)
        s.send_to_connection(ann.id, "hi", **TEXT)
        s.send_to_connection(ann.id, {"a": [1]})
        s.send_to_connection(ann.id, io.BytesIO(b"\x09"), **BINARY)
        s.send_to_connection("ghost", "lost", **TEXT)
        self.assertEqual(ann.until_now(), [("server", "text", "hi"), ("server", "json", {"a": [1]}), ("server", "binary", "CQ==")])
        self.assertEqual(bo.until_now(), [])

    def test_a_bad_filter_is_refused(self):
        e = self.refused(400, lambda: service("py_all").send_to_all("x", filter="ab eq 1", **TEXT))
        self.assertIn("Token 'ab' is not supported.", str(e.response.text()))


class Membership(Suite):
    def members(self, hub, group, clients):
        service(hub).send_to_group(group, "who is here?", **TEXT)
        return [name for name, c in clients.items() if c.until_now() == [(f"group {group}", "text", "who is here?")]]

    def test_by_connection(self):
        hub, s = "py_join", service("py_join")
        clients = {"ann": self.wire(hub), "bo": self.wire(hub)}
        s.add_connection_to_group("room", clients["ann"].id)
        s.add_connection_to_group("room", clients["bo"].id)
        self.assertEqual(self.members(hub, "room", clients), ["ann", "bo"])
        s.remove_connection_from_group("room", clients["ann"].id)
        self.assertEqual(self.members(hub, "room", clients), ["bo"])
        s.remove_connection_from_all_groups(clients["bo"].id)
        self.assertEqual(self.members(hub, "room", clients), [])
        e = self.refused(404, lambda: s.add_connection_to_group("room", "ghost"))
        self.assertEqual(e.response.headers["x-ms-error-code"], "Error.Connection.NotExisted")
        s.remove_connection_from_group("room", "ghost")

    def test_by_user(self):
        hub, s = "py_joinuser", service("py_joinuser")
        clients = {"phone": self.wire(hub, user_id="ann"), "desk": self.wire(hub, user_id="ann"), "bo": self.wire(hub, user_id="bo")}
        s.add_user_to_group("a", "ann")
        s.add_user_to_group("b", "ann")
        s.add_user_to_group("a", "bo")
        self.assertEqual(self.members(hub, "a", clients), ["phone", "desk", "bo"])
        s.remove_user_from_group("a", "ann")
        self.assertEqual(self.members(hub, "a", clients), ["bo"])
        self.assertEqual(self.members(hub, "b", clients), ["phone", "desk"])
        s.remove_user_from_all_groups("ann")
        self.assertEqual(self.members(hub, "b", clients), [])
        self.refused(404, lambda: s.add_user_to_group("a", "ghost"))
        s.remove_user_from_group("a", "ghost")
        s.remove_user_from_all_groups("ghost")

    def test_existence(self):
        hub, s = "py_exists", service("py_exists")
        ann = self.wire(hub, user_id="ann b", groups=["room"])
        self.assertTrue(s.connection_exists(ann.id))
        self.assertTrue(s.user_exists("ann b"))
        self.assertTrue(s.group_exists("room"))
        self.assertFalse(s.connection_exists("ghost"))
        self.assertFalse(s.user_exists("ghost"))
        self.assertFalse(s.group_exists("ghost"))

    def test_listing(self):
        hub, s = "py_list", service("py_list")
        want = []
        for n in range(5):
            c = self.wire(hub, user_id=f"user {n}", groups=["the crowd"])
            want.append((c.id, f"user {n}"))
        want.sort()
        pages = lambda **options: [[(m.connection_id, m.user_id) for m in page] for page in s.list_connections(group="the crowd", **options).by_page()]
        self.assertEqual(pages(), [want])
        self.assertEqual(pages(maxpagesize=2), [want[:2], want[2:4], want[4:]])
        self.assertEqual(pages(maxpagesize=2, top=3), [want[:2], want[2:3]])
        self.assertEqual([(m.connection_id, m.user_id) for m in s.list_connections(group="the crowd", maxpagesize=1)], want)
        self.assertEqual(list(s.list_connections(group="nobody")), [])


class Permissions(Suite):
    def test_grant_check_revoke(self):
        hub, s = "py_permissions", service("py_permissions")
        ann = self.client(hub)
        for permission in ("sendToGroup", "joinLeaveGroup"):
            self.assertFalse(s.has_permission(permission, ann.id, target_name="a room"))
            s.grant_permission(permission, ann.id, target_name="a room")
            self.assertTrue(s.has_permission(permission, ann.id, target_name="a room"))
            self.assertFalse(s.has_permission(permission, ann.id, target_name="another"))
        ann.sdk.join_group("a room")
        ann.sdk.send_to_group("a room", "hi", "text")
        self.assertEqual(ann.received(1), [("group a room", "text", "hi")])
        for permission in ("sendToGroup", "joinLeaveGroup"):
            s.revoke_permission(permission, ann.id, target_name="a room")
            self.assertFalse(s.has_permission(permission, ann.id, target_name="a room"))
        self.refused(404, lambda: s.grant_permission("sendToGroup", "ghost", target_name="a room"))
        s.revoke_permission("sendToGroup", "ghost", target_name="a room")


class Closing(Suite):
    def told(self, c, reason):
        want = {"type": "system", "event": "disconnected", "message": f"Application server closed the connection. Reason: {reason}"}
        self.assertEqual(c.read(), want)
        opcode, data = c.ws.recv_data()
        self.assertEqual((opcode, data), (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2, "big")), "the close frame")
        self.assertFalse(service(c.hub).connection_exists(c.id))

    def test_one(self):
        ann, bo = self.wire("py_close"), self.wire("py_close")
        service("py_close").close_connection(ann.id, reason="bye & co")
        self.told(ann, "bye & co")
        self.assertEqual(bo.until_now(), [])
        service("py_close").close_connection("ghost")

    def test_all_but_some(self):
        ann, bo = self.wire("py_closeall"), self.wire("py_closeall")
        service("py_closeall").close_all_connections(excluded=[bo.id], reason="night")
        self.told(ann, "night")
        self.assertEqual(bo.until_now(), [])

    def test_group_but_some(self):
        hub = "py_closegroup"
        ann, bo, cy = self.wire(hub, groups=["room"]), self.wire(hub, groups=["room"]), self.wire(hub)
        service(hub).close_group_connections("room", excluded=[bo.id], reason="cleaning")
        self.told(ann, "cleaning")
        self.assertEqual([bo.until_now(), cy.until_now()], [[], []])

    def test_user_but_some(self):
        hub = "py_closeuser"
        phone, desk, bo = self.wire(hub, user_id="ann"), self.wire(hub, user_id="ann"), self.wire(hub, user_id="bo")
        service(hub).close_user_connections("ann", excluded=[desk.id], reason="logged out")
        self.told(phone, "logged out")
        self.assertEqual([desk.until_now(), bo.until_now()], [[], []])


class Access(Suite):
    def test_a_service_client_made_from_endpoint_and_key(self):
        ann = self.wire("py_key", user_id="ann")
        WebPubSubServiceClient(endpoint=ENDPOINT, hub="py_key", credential=AzureKeyCredential(KEY)).send_to_user("ann", "hi", **TEXT)
        self.assertEqual(ann.until_now(), [("server", "text", "hi")])

    def test_a_wrong_key_is_refused(self):
        wrong = WebPubSubServiceClient(endpoint=ENDPOINT, hub="py_key", credential=AzureKeyCredential("no" * 20))
        self.refused(401, lambda: wrong.send_to_all("x", **TEXT))
        with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
            websocket.create_connection(wrong.get_client_access_token(user_id="eve")["url"])
        self.assertEqual(caught.exception.status_code, 401)

    def test_tokens(self):
        token = service("py_tokens").get_client_access_token(
            user_id="ann", roles=["webpubsub.sendToGroup.room"], groups=["room"], minutes_to_expire=1
        )
        ws = websocket.create_connection(token["baseUrl"], header={"Authorization": f"Bearer {token['token']}"}, timeout=60)
        self.addCleanup(ws.close)
        ws.send("as a plain client")  # no handler: its event is refused, and so the connection ends
        opcode, data = ws.recv_data()
        self.assertEqual((opcode, int.from_bytes(data[:2], "big")), (websocket.ABNF.OPCODE_CLOSE, 1011))


if __name__ == "__main__":
    unittest.main()
