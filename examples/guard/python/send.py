"""Sends a text through the service of this example, by its access key or, where there is no
CONNECTION_STRING, by a token of Entra ID. It is written for Azure's service."""

import os

from azure.communication.sms import SmsClient
from azure.core.exceptions import HttpResponseError
from azure.identity import DefaultAzureCredential


def client():
    if os.environ.get("CONNECTION_STRING"):
        # https, whatever it says: the SDK takes no more than the host out of it.
        return SmsClient.from_connection_string(os.environ["CONNECTION_STRING"])
    # Takes what it finds; an authority of your own is not in Microsoft's list, so there it
    # must not be looked up. https only: the SDK shows no token over plain HTTP.
    credential = DefaultAzureCredential(disable_instance_discovery="AZURE_AUTHORITY_HOST" in os.environ)
    return SmsClient(os.environ.get("ENDPOINT", "https://localhost:8092"), credential)


try:
    for result in client().send("+14255550100", ["+14255550123", "4255550123"], "hello"):
        print("sent" if result.successful else "not sent", "to", result.to, result.http_status_code)
except HttpResponseError as e:
    print("refused:", e.status_code, (e.error.innererror or {}).get("code", e.error.code))
