"""Clients without a token that show a certificate, judged by an application server: the
node asks it about each client that wants to connect, and tells what the client showed."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def plain(thumbprint):
    return thumbprint.replace(":", "").lower()


# Whom we know: users by the SHA-1 of their certificates, as "openssl x509 -fingerprint" prints it.
USERS = {plain(os.environ["THUMBPRINT"]): "drill-1"}


class Handler(BaseHTTPRequestHandler):
    def do_OPTIONS(self):
        """The node asks whether it may call us at all."""
        self.answer(200, {"WebHook-Allowed-Origin": self.headers.get("WebHook-Request-Origin", "")})

    def do_POST(self):
        """The connect event. The answer reveals nothing and changes nothing here, so it
        does not matter who asks."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not event["clientCertificates"]:
            return self.answer(401)
        # The TLS handshake has proved that the client has its key, but nobody has looked at who
        # signed it or until when. Knowing exactly this certificate makes up for both.
        user = USERS.get(plain(event["clientCertificates"][0]["thumbprint"]))
        if not user:
            return self.answer(403)
        self.answer(200, {"Content-Type": "application/json"}, json.dumps({"userId": user, "groups": ["drills"]}))

    def answer(self, status, headers={}, body=""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Handler)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
