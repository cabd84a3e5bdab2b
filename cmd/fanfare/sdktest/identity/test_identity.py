"""azure-communication-identity: users and their tokens, by an access key and, over
TLS, by tokens of Entra ID; with the client that blocks and with the asynchronous one."""

import asyncio
import base64
import json
import os
import re
import time
import unittest
import urllib.parse
import urllib.request
from datetime import datetime, timedelta

from azure.communication.identity import CommunicationIdentityClient, CommunicationUserIdentifier, identifier_from_raw_id
from azure.communication.identity.aio import CommunicationIdentityClient as AsyncIdentityClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import HttpResponseError

ENDPOINT, KEY, SECONDARY_KEY = (os.environ[name] for name in ("IDENTITY_ENDPOINT", "FANFARE_KEY", "FANFARE_SECONDARY_KEY"))
AUTHORITY = os.environ["ENTRA_AUTHORITY"]
OWNER, PUBSUB, ANN, CLIENT = (os.environ[f"ENTRA_{name}"] for name in ("OWNER", "PUBSUB", "USER", "CLIENT"))

SCOPES = ["chat", "chat.join", "chat.join.limited", "voip", "voip.join"]
NOBODY = CommunicationUserIdentifier("8:acs:00000000-0000-4000-8000-000000000000_00000000-0000-4000-8000-000000000000")


def claims(token):
    """Reads a token as this SDK does, with the alphabet of base64 and in ASCII."""
    payload = token.split(".")[1]
    return json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True).decode("ascii"))


def seconds(text):
    """Reads a time, which this SDK hands out as it came."""
    return datetime.fromisoformat(text).timestamp()


def granted(**form):
    at = f"{AUTHORITY}/{os.environ['ENTRA_TENANT']}/v2.0/token"
    with urllib.request.urlopen(at, urllib.parse.urlencode(form).encode(), timeout=10) as reply:
        return json.load(reply)


class Entra:
    """The credential of an application."""

    def __init__(self, client_id):
        self.client_id, self.asked = client_id, []

    def get_token(self, *scopes, **_):
        self.asked += scopes
        got = granted(grant_type="client_credentials", client_id=self.client_id, scope=" ".join(scopes))
        return AccessToken(got["access_token"], int(time.time()) + got["expires_in"])


class AsyncEntra(Entra):
    async def get_token(self, *scopes, **options):
        return super().get_token(*scopes, **options)

    async def close(self):
        pass


class Awaited:
    """The asynchronous client with methods that wait for what they return."""

    def __init__(self, endpoint, credential):
        self.runner = asyncio.Runner()
        self.sdk = self.runner.run(self.made(endpoint, credential))

    async def made(self, endpoint, credential):
        return AsyncIdentityClient(endpoint, credential)

    def __getattr__(self, name):
        return lambda *args, **options: self.runner.run(getattr(self.sdk, name)(*args, **options))

    def close(self):
        self.runner.run(self.sdk.close())
        self.runner.close()


class Suite(unittest.TestCase):
    maxDiff = None

    def client(self, make, credential):
        c = make(ENDPOINT, credential)
        if make is Awaited:
            self.addCleanup(c.close)
        return c

    def answered(self, status, call, *args, **options):
        """Checks the status of the answer to a call, and returns what the SDK makes of it."""
        seen = []
        result = call(*args, raw_response_hook=lambda r: seen.append(r.http_response.status_code), **options)
        self.assertEqual(seen, [status])
        return result

    def refused(self, status, code, message, call, *args, **options):
        """Checks how the SDK shows a refusal."""
        with self.assertRaises(HttpResponseError) as caught:
            call(*args, **options)
        e = caught.exception
        self.assertEqual((e.status_code, e.error and e.error.code), (status, code), str(e))
        self.assertRegex(e.error.message, message)


class Everything:
    """What who may do everything can do. self.identity is the client."""

    def test_a_user_with_and_without_a_token(self):
        bo = self.answered(201, self.identity.create_user)
        self.assertRegex(bo.raw_id, r"^8:acs:[0-9a-f-]{36}_[0-9a-f-]{36}$")
        self.assertEqual(identifier_from_raw_id(bo.raw_id).kind, "communication_user")

        cy, token = self.answered(201, self.identity.create_user_and_token, ["chat", "voip"], token_expires_in=timedelta(hours=1))
        self.assertNotEqual(cy.raw_id, bo.raw_id)
        c = claims(token.token)
        self.assertEqual((f"8:{c['skypeid']}", c["acsScope"], c["exp"] - c["iat"]), (cy.raw_id, "chat,voip", 3600))

    def test_tokens_of_each_scope_and_lifetime(self):
        user = self.identity.create_user()
        for scope in SCOPES:
            token = self.answered(200, self.identity.get_token, user, [scope])
            self.assertEqual(claims(token.token)["acsScope"], scope)
        for lifetime, minutes in [(None, 1440), (60, 60), (61, 61), (1440, 1440)]:
            token = self.identity.get_token(user, SCOPES, token_expires_in=lifetime and timedelta(minutes=lifetime))
            c = claims(token.token)
            self.assertEqual((c["exp"] - c["iat"], c["acsScope"]), (minutes * 60, ",".join(SCOPES)))
            self.assertEqual(seconds(token.expires_on), c["exp"])

    def test_tokens_that_are_not_to_be_had(self):
        user = self.identity.create_user()
        for minutes in (59, 1441):
            lifetime = timedelta(minutes=minutes)
            self.refused(400, "ValidationError", "60 to 1440", self.identity.get_token, user, ["chat"], token_expires_in=lifetime)
            self.refused(400, "ValidationError", "60 to 1440", self.identity.create_user_and_token, ["chat"], token_expires_in=lifetime)
        self.refused(400, "ValidationError", "expected some of chat, ", self.identity.get_token, user, [])
        self.refused(400, "ValidationError", '"shout"', self.identity.get_token, user, ["shout"])

    def test_revoke_and_delete(self):
        user = self.identity.create_user()
        self.answered(204, self.identity.revoke_tokens, user)
        self.identity.get_token(user, ["chat"])
        self.answered(204, self.identity.delete_user, user)
        for gone in (user, NOBODY):
            for call in (lambda u: self.identity.get_token(u, ["chat"]), self.identity.revoke_tokens, self.identity.delete_user):
                self.refused(404, "IdentityNotFound", re.escape(gone.raw_id), call, gone)

    def test_a_token_of_entra_id_for_a_teams_user(self):
        entra = granted(grant_type="password", username=ANN, client_id=CLIENT, scope="https://auth.msft.communication.azure.com/Teams.ManageCalls")["access_token"]
        token = self.answered(200, self.identity.get_token_for_teams_user, entra, CLIENT, ANN)
        end = claims(entra)["exp"]
        self.assertEqual((claims(token.token)["exp"], seconds(token.expires_on)), (end, end))
        self.refused(400, "ValidationError", "appId", self.identity.get_token_for_teams_user, entra, PUBSUB, ANN)
        self.refused(400, "ValidationError", "userId", self.identity.get_token_for_teams_user, entra, CLIENT, PUBSUB)


class ByKey(Everything, Suite):
    def setUp(self):
        self.identity = self.client(CommunicationIdentityClient, AzureKeyCredential(KEY))

    def test_the_secondary_key_and_a_wrong_one(self):
        self.client(CommunicationIdentityClient, AzureKeyCredential(SECONDARY_KEY)).create_user()
        wrong = base64.b64encode(bytes(32)).decode()
        self.refused(401, "Denied", r"^Denied by the resource provider\.$", self.client(CommunicationIdentityClient, AzureKeyCredential(wrong)).create_user)


class ByKeyAsynchronously(Everything, Suite):
    def setUp(self):
        self.identity = self.client(Awaited, AzureKeyCredential(KEY))


class ByConnectionString(Suite):
    def test_over_tls(self):  # which the SDK takes whatever the endpoint says
        identity = CommunicationIdentityClient.from_connection_string(f"endpoint={ENDPOINT}/;accesskey={KEY}")
        self.assertRegex(identity.create_user().raw_id, "^8:acs:")


class ByEntra(Everything, Suite):
    def setUp(self):
        self.credential = Entra(OWNER)
        self.identity = self.client(CommunicationIdentityClient, self.credential)

    def test_the_resource_that_the_sdk_asks_for(self):
        self.identity.create_user()
        self.assertEqual(self.credential.asked, ["https://communication.azure.com//.default"])

    def test_who_lacks_the_role(self):
        for who in (PUBSUB, "99999999-0000-4000-8000-000000000009"):
            identity = self.client(CommunicationIdentityClient, Entra(who))
            self.refused(403, "Forbidden", "identity/write", identity.create_user)
            self.refused(403, "Forbidden", "identity/write", identity.delete_user, NOBODY)
            self.refused(403, "Forbidden", "identity/token/action", identity.get_token, NOBODY, ["chat"])
            self.refused(403, "Forbidden", "identity/token/action", identity.revoke_tokens, NOBODY)


class ByEntraAsynchronously(Everything, Suite):
    def setUp(self):
        self.identity = self.client(Awaited, AsyncEntra(OWNER))


if not ENDPOINT.startswith("https:"):  # by which the SDK sends no bearer token
    del ByEntra, ByEntraAsynchronously, ByConnectionString

if __name__ == "__main__":
    unittest.main()
