"""A chat in one page of code: this server hands out client URLs, decides who may
connect, and passes on what people say. The node keeps the connections."""

import hashlib
import hmac
import os
import pathlib

from azure.messaging.webpubsubservice import WebPubSubServiceClient
from flask import Flask, Response, abort, jsonify, request, send_file
from werkzeug.serving import make_server

CONNECTION_STRING = os.environ.get(
    "CONNECTION_STRING",
    "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;",
)
KEY = dict(part.split("=", 1) for part in CONNECTION_STRING.strip(";").split(";"))["AccessKey"]

service = WebPubSubServiceClient.from_connection_string(CONNECTION_STRING, hub="chat")
app = Flask(__name__)


def say(sender, text):
    service.send_to_all({"from": sender, "text": text})


@app.get("/")
def page():
    return send_file(pathlib.Path(__file__).parent.parent / "index.html")


@app.get("/negotiate")
def negotiate():
    return jsonify(url=service.get_client_access_token(user_id=request.args["id"])["url"])


@app.route("/eventhandler", methods=["OPTIONS"])
def consent():
    """The node asks whether it may call us at all."""
    return Response(headers={"WebHook-Allowed-Origin": request.headers.get("WebHook-Request-Origin", "")})


@app.post("/eventhandler")
def event():
    # Only the node knows the key, so only the node can have signed the connection's id.
    signature = "sha256=" + hmac.new(KEY.encode(), request.headers["ce-connectionId"].encode(), hashlib.sha256).hexdigest()
    if not any(hmac.compare_digest(signature, s) for s in request.headers.get("ce-signature", "").split(",")):
        abort(401)
    user = request.headers.get("ce-userId", "")
    match request.headers["ce-type"]:
        case "azure.webpubsub.sys.connect":
            if not user:
                abort(401, "a chat needs names")
        case "azure.webpubsub.sys.connected":
            say("", f"{user} is here")
        case "azure.webpubsub.sys.disconnected":
            say("", f"{user} has left")
        case "azure.webpubsub.user.message":
            say(user, request.get_data(as_text=True))
    return "", 204


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(os.environ.get("PORT", "3000")), app, threaded=True)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
