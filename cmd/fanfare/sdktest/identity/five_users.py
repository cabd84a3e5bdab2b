"""Makes five users, one after the other."""

import os

from azure.communication.identity import CommunicationIdentityClient
from azure.core.credentials import AzureKeyCredential

identity = CommunicationIdentityClient(os.environ["IDENTITY_ENDPOINT"], AzureKeyCredential(os.environ["FANFARE_KEY"]))
for _ in range(5):
    identity.create_user()
print("made five users")
