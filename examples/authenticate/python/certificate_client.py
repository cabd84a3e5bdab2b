"""A client that proves itself by a certificate in the TLS handshake, and by nothing else:
its URL holds no token. Who judges the certificate is up to the hub."""

import json
import os
import sys

import websocket

url = os.environ.get("URL", "wss://localhost:8080/client/hubs/guarded")
certificate = {}
if "CERT_FILE" in os.environ:
    certificate = {"certfile": os.environ["CERT_FILE"], "keyfile": os.environ["KEY_FILE"]}

try:
    client = websocket.create_connection(url, subprotocols=["json.webpubsub.azure.v1"], sslopt=certificate)
except websocket.WebSocketBadStatusException as e:
    sys.exit(f"refused: {e.status_code}")

print("connected as", json.loads(client.recv())["userId"], flush=True)
while (message := json.loads(client.recv()))["type"] != "message":
    pass
print("received:", message["data"])
client.close()
