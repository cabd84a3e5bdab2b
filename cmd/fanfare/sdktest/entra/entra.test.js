'use strict';
// The service SDK with a TokenCredential, against a node that accepts no access key.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { test } = require('node:test');
const { AzureKeyCredential, WebPubSubServiceClient } = require('@azure/web-pubsub');
const WebSocket = require('ws');

const { FANFARE_ENDPOINT: endpoint, FANFARE_KEY: key, ENTRA_AUTHORITY: authority, ENTRA_TENANT: tenant } = process.env;
const { ENTRA_OWNER: owner, ENTRA_READER: reader } = process.env;

// Credential gets tokens by the client credentials grant, as a service does.
class Credential {
  constructor(clientId) {
    this.clientId = clientId;
    this.asked = [];
  }

  async getToken(scopes) {
    this.asked.push(scopes);
    const reply = await fetch(`${authority}/${tenant}/v2.0/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'client_credentials', client_id: this.clientId, scope: [scopes].flat().join(' ') }),
    });
    assert.equal(reply.status, 200, 'the issuer gives tokens');
    const { access_token: token, expires_in: seconds } = await reply.json();
    return { token, expiresOnTimestamp: Date.now() + seconds * 1000 };
  }
}

const service = (hub, clientId = owner, credential = new Credential(clientId)) => new WebPubSubServiceClient(endpoint, credential, hub);

// opened connects a client and returns the next message that it gets, when it comes.
async function opened(t, url) {
  const ws = new WebSocket(url);
  t.after(() => ws.terminate());
  await once(ws, 'open');
  return { ws, next: () => once(ws, 'message').then(([data]) => data.toString()) };
}

test('an owner generates a client token, and what it sends arrives', async (t) => {
  const credential = new Credential(owner);
  const chat = service('chat', owner, credential);
  const { token, url } = await chat.getClientAccessToken({ userId: 'ann', roles: ['webpubsub.sendToGroup'], groups: ['room'], expirationTimeInMinutes: 5 });
  assert.deepEqual(credential.asked, [['https://webpubsub.azure.com/.default']]);
  const payload = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
  assert.equal(payload.iss, 'https://webpubsub.azure.com');
  assert.equal(payload.exp - payload.iat, 300);
  const ann = await opened(t, url);
  for (const send of [
    () => chat.sendToAll('to all', { contentType: 'text/plain' }),
    () => chat.sendToUser('ann', 'to ann', { contentType: 'text/plain' }),
    () => chat.group('room').sendToAll('to room', { contentType: 'text/plain' }),
  ]) {
    const got = ann.next();
    await send();
    assert.match(await got, /^to /);
  }
  assert.equal(await chat.userExists('ann'), true);
  const members = [];
  for await (const m of await chat.group('room').listConnections()) members.push(m);
  assert.equal(members.length, 1);
  await chat.grantPermission(members[0].connectionId, 'sendToGroup', { targetName: 'other' });
  assert.equal(await chat.hasPermission(members[0].connectionId, 'sendToGroup', { targetName: 'other' }), true);
  const closed = once(ann.ws, 'close');
  await chat.closeUserConnections('ann');
  assert.equal((await closed)[0], 1000);
});

test('a reader reads, and is told what it lacks for the rest', async () => {
  const chat = service('chat', reader);
  assert.equal(await chat.userExists('nobody'), false);
  for (const [call, action] of [
    [() => chat.sendToAll('no', { contentType: 'text/plain' }), 'hub/send/action'],
    [() => chat.group('room').sendToAll('no', { contentType: 'text/plain' }), 'group/send/action'],
    [() => chat.getClientAccessToken(), 'clientConnection/generateToken/action'],
    [() => chat.closeAllConnections(), 'clientConnection/write'],
  ]) {
    await assert.rejects(call(), (e) => {
      assert.equal(e.statusCode, 403);
      assert.equal(e.code, 'Error.Forbidden');
      assert.match(e.message, new RegExp(`Microsoft\\.SignalRService/WebPubSub/${action} permission is required`));
      return true;
    });
  }
});

test('an application without a role, and an access key', async () => {
  await assert.rejects(service('chat', '99999999-0000-4000-8000-000000000009').sendToAll('no'), { statusCode: 403 });
  await assert.rejects(new WebPubSubServiceClient(endpoint, new AzureKeyCredential(key), 'chat').sendToAll('no'), { statusCode: 401 });
});

test('a key that the issuer has changed to', async () => {
  await service('chat').sendToAll('before', { contentType: 'text/plain' });
  assert.equal((await fetch(`${authority}/rotate`, { method: 'POST' })).status, 200);
  // The node asks its issuer at most once in ten seconds.
  for (const end = Date.now() + 60_000; ; ) {
    try {
      await service('chat').sendToAll('after', { contentType: 'text/plain' });
      return;
    } catch (e) {
      assert.equal(e.statusCode, 401);
      assert.ok(Date.now() < end, 'the new key is known within a minute');
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
});
