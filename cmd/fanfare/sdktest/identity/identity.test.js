'use strict';
// @azure/communication-identity: users and their tokens, by an access key and, over
// TLS, by tokens of Entra ID.

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { createIdentifierFromRawId, parseConnectionString } = require('@azure/communication-common');
const { CommunicationIdentityClient } = require('@azure/communication-identity');
const { AzureKeyCredential } = require('@azure/core-auth');
const { entra, userToken } = require('./entra');

const { IDENTITY_ENDPOINT: endpoint, FANFARE_KEY: key, FANFARE_SECONDARY_KEY: secondaryKey } = process.env;
const { ENTRA_OWNER: owner, ENTRA_PUBSUB: pubSub, ENTRA_USER: ann, ENTRA_CLIENT: client } = process.env;

const secure = endpoint.startsWith('https:'); // or the SDK sends no bearer token
const options = { allowInsecureConnection: !secure };
const service = (credential, more) => new CommunicationIdentityClient(endpoint, credential, { ...options, ...more });
const byKey = (k = key, more) => service(new AzureKeyCredential(k), more);

const scopes = ['chat', 'chat.join', 'chat.join.limited', 'voip', 'voip.join'];
const nobody = { communicationUserId: '8:acs:00000000-0000-4000-8000-000000000000_00000000-0000-4000-8000-000000000000' };

// claims reads a token as any reader does.
const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));

// answered checks the status of the answer to a call, and returns what the SDK makes of it.
async function answered(status, call) {
  let seen;
  const result = await call({ onResponse: (response) => (seen = response.status) });
  assert.equal(seen, status);
  return result;
}

// refused checks how the SDK shows a refusal.
const refused = (call, statusCode, code, message) =>
  assert.rejects(call, (e) => {
    assert.deepEqual([e.statusCode, e.code], [statusCode, code], e.message);
    assert.match(e.message, message);
    return true;
  });

// Who may do everything has one of these credentials.
const everybody = { 'an access key': (more) => byKey(key, more) };
if (secure) everybody['a token of Entra ID'] = (more) => service(entra(owner), more);

for (const [what, connect] of Object.entries(everybody)) {
  describe(what, () => {
    test('a user, with and without a token', async () => {
      const identity = connect();
      const bo = await answered(201, (o) => identity.createUser(o));
      assert.match(bo.communicationUserId, /^8:acs:[0-9a-f-]{36}_[0-9a-f-]{36}$/);
      assert.equal(createIdentifierFromRawId(bo.communicationUserId).kind, 'communicationUser');

      const cy = await answered(201, (o) => identity.createUserAndToken(['chat', 'voip'], { tokenExpiresInMinutes: 60, ...o }));
      assert.notEqual(cy.user.communicationUserId, bo.communicationUserId);
      const c = claims(cy.token);
      assert.equal(`8:${c.skypeid}`, cy.user.communicationUserId);
      assert.equal(c.acsScope, 'chat,voip');
      assert.equal(c.exp - c.iat, 3600);
      assert.equal(cy.expiresOn.getTime(), c.exp * 1000);

      const di = await answered(201, (o) => identity.createUserAndToken([], o));
      assert.equal(di.token, undefined, 'no scope, no token');
    });

    test('tokens of each scope and lifetime', async () => {
      const identity = connect();
      const user = await identity.createUser();
      for (const scope of scopes) {
        const { token } = await answered(200, (o) => identity.getToken(user, [scope], o));
        assert.equal(claims(token).acsScope, scope);
      }
      const folded = await identity.getToken(user, [...scopes, ...scopes]);
      assert.equal(claims(folded.token).acsScope, scopes.join());
      for (const [tokenExpiresInMinutes, minutes] of [[undefined, 1440], [60, 60], [61, 61], [1440, 1440]]) {
        const { token, expiresOn } = await identity.getToken(user, ['chat'], { tokenExpiresInMinutes });
        const c = claims(token);
        assert.equal(c.exp - c.iat, minutes * 60);
        assert.equal(expiresOn.getTime(), c.exp * 1000);
      }
    });

    test('tokens that are not to be had', async () => {
      const identity = connect();
      const user = await identity.createUser();
      for (const tokenExpiresInMinutes of [59, 1441, 60.5, -60]) {
        await refused(identity.getToken(user, ['chat'], { tokenExpiresInMinutes }), 400, 'ValidationError', /60 to 1440/);
        await refused(identity.createUserAndToken(['chat'], { tokenExpiresInMinutes }), 400, 'ValidationError', /60 to 1440/);
      }
      await refused(identity.getToken(user, []), 400, 'ValidationError', /expected some of chat, /);
      await refused(identity.getToken(user, ['shout']), 400, 'ValidationError', /"shout"/);
      await refused(identity.createUserAndToken(['shout']), 400, 'ValidationError', /"shout"/);
      for (const id of ['ann', '8:acs:a_b', 'a/b c']) {
        await refused(identity.getToken({ communicationUserId: id }, ['chat']), 400, 'ValidationError', /id/);
      }
    });

    test('revoke, and delete', async () => {
      const identity = connect();
      const user = await identity.createUser();
      await answered(204, (o) => identity.revokeTokens(user, o));
      await identity.getToken(user, ['chat']);
      await answered(204, (o) => identity.deleteUser(user, o));
      for (const gone of [user, nobody]) {
        const unknown = new RegExp(gone.communicationUserId);
        await refused(identity.getToken(gone, ['chat']), 404, 'IdentityNotFound', unknown);
        await refused(identity.revokeTokens(gone), 404, 'IdentityNotFound', unknown);
        await refused(identity.deleteUser(gone), 404, 'IdentityNotFound', unknown);
      }
    });

    test('an api-version that nobody knows', async () => {
      await refused(connect({ apiVersion: '1999-01-01' }).createUser(), 400, 'UnsupportedApiVersion', /1999-01-01/);
    });

    test('a token of Entra ID for a Teams user', async () => {
      const identity = connect();
      const teamsUserAadToken = await userToken(ann, client);
      const exchange = (more) => identity.getTokenForTeamsUser({ teamsUserAadToken, clientId: client, userObjectId: ann, ...more });
      const { token, expiresOn } = await answered(200, exchange);
      assert.equal(expiresOn.getTime(), claims(teamsUserAadToken).exp * 1000, 'it ends with the token that it was had for');
      assert.equal(claims(token).exp * 1000, expiresOn.getTime());
      assert.equal(claims(token).skypeid, claims((await exchange()).token).skypeid, 'the user stays the same');
      await refused(exchange({ clientId: pubSub }), 400, 'ValidationError', /appId/);
      await refused(exchange({ userObjectId: pubSub }), 400, 'ValidationError', /userId/);
      await refused(exchange({ teamsUserAadToken: `${teamsUserAadToken}x` }), 401, 'InvalidAccessToken', /^Provided access token is not valid\.$/);
    });
  });
}

test('the secondary key, a connection string, and a wrong key', async () => {
  await byKey(secondaryKey).createUser();
  const connectionString = `endpoint=${endpoint}/;accesskey=${key}`;
  assert.equal(parseConnectionString(connectionString).credential.key, key);
  await new CommunicationIdentityClient(connectionString, options).createUser();
  await refused(byKey(Buffer.alloc(32).toString('base64')).createUser(), 401, 'Denied', /^Denied by the resource provider\.$/);
});

if (secure) {
  test('the resource that the SDK asks for', async () => {
    const credential = entra(owner);
    await service(credential).createUser();
    assert.deepEqual(credential.asked, ['https://communication.azure.com//.default']);
  });

  test('who lacks the role', async () => {
    for (const who of [pubSub, '99999999-0000-4000-8000-000000000009']) {
      const identity = service(entra(who));
      await refused(identity.createUser(), 403, 'Forbidden', /identity\/write/);
      await refused(identity.deleteUser(nobody), 403, 'Forbidden', /identity\/write/);
      await refused(identity.getToken(nobody, ['chat']), 403, 'Forbidden', /identity\/token\/action/);
      await refused(identity.revokeTokens(nobody), 403, 'Forbidden', /identity\/token\/action/);
    }
  });

  test('a token for another resource', async () => {
    const elsewhere = { getToken: () => entra(owner).getToken('https://webpubsub.azure.com/.default') };
    await refused(service(elsewhere).createUser(), 401, 'Denied', /^Denied by the resource provider\.$/);
  });
}
