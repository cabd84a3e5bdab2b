'use strict';
// Makes five users, one after the other.

const { CommunicationIdentityClient } = require('@azure/communication-identity');
const { AzureKeyCredential } = require('@azure/core-auth');

async function main() {
  const identity = new CommunicationIdentityClient(process.env.IDENTITY_ENDPOINT, new AzureKeyCredential(process.env.FANFARE_KEY));
  for (let n = 0; n < 5; n++) await identity.createUser();
  console.log('made five users');
}

main();
