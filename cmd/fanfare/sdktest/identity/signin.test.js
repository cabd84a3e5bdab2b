'use strict';
// AzureCommunicationTokenCredential in the name of a user of Entra ID, who may exchange
// the tokens that it has through one application.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { AzureCommunicationTokenCredential } = require('@azure/communication-common');
const { WebPubSubClient } = require('@azure/web-pubsub-client');
const { plain } = require('../javascript/fanfare');
const { entra, userToken } = require('./entra');
const { clientURL, identity } = require('./users');

const { IDENTITY_ENDPOINT: endpoint, ENTRA_TENANT: tenant, ENTRA_OWNER: owner, ENTRA_USER: ann, ENTRA_CLIENT: client, ENTRA_PUBSUB: other } = process.env;
const extension = 'https://auth.msft.communication.azure.com/TeamsExtension.ManageChats';

// signedIn is the credential of ann in an application, which asks for a scope, or for
// what SDKs ask for by default: Entra ID then grants the scopes that were consented to.
const signedIn = (application, scope) =>
  new AzureCommunicationTokenCredential({
    resourceEndpoint: endpoint,
    ...(scope && { scopes: [scope] }),
    tokenCredential: {
      getToken: async ([wanted]) => ({
        token: await userToken(ann, application, wanted.replace('.default', 'Chat')), expiresOnTimestamp: Date.now() + 3600_000,
      }),
    },
  });

// assign says through which applications ann may exchange tokens; through none without any.
async function assign(...clientIds) {
  const { token } = await entra(owner).getToken('https://communication.azure.com//.default');
  const reply = await fetch(`${endpoint}/access/teamsExtension/tenants/${tenant}/assignments/${ann}?api-version=2025-06-30`, {
    method: clientIds.length > 0 ? 'PUT' : 'DELETE',
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
    body: clientIds.length > 0 ? JSON.stringify({ principalType: 'user', clientIds }) : undefined,
  });
  return reply.status;
}

for (const [name, scope] of [['for the Teams extension', extension], ['by the default scope', undefined]]) {
  test(`a user signs in ${name}`, async (t) => {
    await assert.rejects(signedIn(client, scope).getToken(), /Status: 403.*rest\.assignment/);
    assert.equal(await assign(client), 201);
    assert.equal(await assign(client), 200);
    await assert.rejects(signedIn(other, scope).getToken(), /Status: 403.*rest\.assignment/);

    const credential = signedIn(client, scope);
    const { token, expiresOnTimestamp } = await credential.getToken();
    assert.ok(expiresOnTimestamp > Date.now());
    const c = new WebPubSubClient({ getClientAccessUrl: async () => clientURL('talk', (await credential.getToken()).token) }, { protocol: plain });
    t.after(() => c.stop());
    const connected = new Promise((resolve) => c.on('connected', resolve));
    await c.start();
    const { userId } = await connected;

    // The app server knows the same user.
    const exchanged = await identity.getTokenForTeamsUser({ teamsUserAadToken: await userToken(ann, client), clientId: client, userObjectId: ann });
    const user = (text) => `8:${JSON.parse(Buffer.from(text.split('.')[1], 'base64url')).skypeid}`;
    assert.deepEqual([user(token), user(exchanged.token)], [userId, userId]);

    // A scope of neither kind is worth nothing.
    const nothing = scope ? 'https://auth.msft.communication.azure.com/User.Read' : 'https://communication.azure.com/clients/Read';
    await assert.rejects(signedIn(client, nothing).getToken(), /Status: 403.*rest\.entraScopes/);

    assert.equal(await assign(), 204);
    await assert.rejects(signedIn(client, scope).getToken(), /Status: 403.*rest\.assignment/);
  });
}
