'use strict';
// AzureCommunicationTokenCredential lets a client of @azure/web-pubsub-client outlive its
// tokens. The shortest token lives for an hour; go test hands out some that the node
// would have issued nearly as long ago.

const assert = require('node:assert/strict');
const { describe, test } = require('node:test');
const { AzureCommunicationTokenCredential } = require('@azure/communication-common');
const { WebPubSubClient } = require('@azure/web-pubsub-client');
const { Inbox, asText, plain, service } = require('../javascript/fanfare');
const { clientURL, identity, newUser, refusal } = require('./users');

const hub = 'talk';

// issuedLongAgo is a token of the scope chat that has some seconds left.
async function issuedLongAgo(id, seconds) {
  const token = await (await fetch(`${process.env.FANFARE_PAST}?user=${encodeURIComponent(id)}&left=${seconds}s`)).text();
  const { exp } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
  const left = exp * 1000 - Date.now() + 10; // a timer may be early by a millisecond
  return { token, expired: new Promise((resolve) => setTimeout(resolve, left)) };
}

// reconnecting opens a client that tries to come back. Its shown are the tokens that it
// has shown.
async function reconnecting(t, credential) {
  const shown = [];
  const getClientAccessUrl = async () => {
    shown.push((await credential.getToken()).token);
    return clientURL(hub, shown.at(-1));
  };
  const c = new WebPubSubClient({ getClientAccessUrl }, { protocol: plain, reconnectRetryOptions: { maxRetries: 1, retryDelayInMs: 1 } });
  c.shown = shown;
  c.inbox = new Inbox();
  c.life = new Inbox();
  c.on('connected', (e) => c.life.push(['connected', e.userId]));
  c.on('stopped', () => c.life.push(['stopped']));
  c.on('server-message', (e) => c.inbox.push(e.message.data));
  t.after(() => c.stop());
  await c.start();
  return c;
}

describe('as time goes by', { concurrency: true }, () => {
  test('the token of a client expires', async (t) => {
    const { user, id } = await newUser('chat');
    const { token, expired } = await issuedLongAgo(id, 10);

    const fixed = await reconnecting(t, new AzureCommunicationTokenCredential(token));
    let refreshed = 0;
    const refreshing = await reconnecting(t, new AzureCommunicationTokenCredential({
      token,
      tokenRefresher: async () => {
        refreshed++;
        return (await identity.getToken(user, ['chat'])).token;
      },
    }));
    for (const c of [fixed, refreshing]) assert.deepEqual(await c.life.next(), ['connected', id]);

    await expired;
    assert.deepEqual(await refusal(clientURL(hub, token)), [401, 'user.expired']);
    await service(hub).sendToUser(id, 'still here', asText); // who is in stays in
    for (const c of [fixed, refreshing]) assert.equal(await c.inbox.next(), 'still here');
    assert.equal(refreshed, 0, 'nobody needs a token yet');

    await service(hub).closeUserConnections(id);
    assert.deepEqual(await fixed.life.next('the end'), ['stopped']);
    assert.deepEqual(await refreshing.life.next('the way back'), ['connected', id]);
    assert.equal(refreshed, 1);
    await service(hub).sendToUser(id, 'welcome back', asText);
    assert.equal(await refreshing.inbox.next(), 'welcome back');
  });

  test('a token is replaced ten minutes ahead, and in the background', async (t) => {
    const { user, id } = await newUser('chat');
    const { token } = await issuedLongAgo(id, 605);
    const asked = new Inbox();
    const credential = new AzureCommunicationTokenCredential({
      token,
      refreshProactively: true,
      tokenRefresher: async () => {
        const fresh = await identity.getToken(user, ['chat'], { tokenExpiresInMinutes: 60 });
        asked.push(fresh.token);
        return fresh.token;
      },
    });
    t.after(() => credential.dispose());
    const c = await reconnecting(t, credential);
    assert.deepEqual(await c.life.next(), ['connected', id]);
    const fresh = await asked.next('the refresher to be called');
    await new Promise(setImmediate); // for the credential to take it
    await service(hub).closeUserConnections(id);
    assert.deepEqual(await c.life.next('the way back'), ['connected', id]);
    assert.deepEqual(c.shown, [token, fresh]);
  });
});
