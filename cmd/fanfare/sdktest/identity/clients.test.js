'use strict';
// User access tokens as clients' credentials: @azure/web-pubsub-client and MQTT.js. What
// scopes are worth is in the settings of the node: chat opens the hub "talk" and lets
// its clients do all, chat.join opens it to listeners, and voip opens nothing.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { test } = require('node:test');
const { AzureCommunicationTokenCredential } = require('@azure/communication-common');
const { WebPubSubClient } = require('@azure/web-pubsub-client');
const mqtt = require('mqtt');
const { Inbox, asText, plain, service } = require('../javascript/fanfare');
const { clientURL, identity, mqttURL, newUser, refusal } = require('./users');

const hub = 'talk';

// words are a text that may have come as bytes, as what MQTT clients publish does.
const words = (data) => (data instanceof ArrayBuffer ? Buffer.from(data).toString() : data);

// open connects a client by a credential.
async function open(t, credential, to = hub) {
  const c = new WebPubSubClient(
    { getClientAccessUrl: async () => clientURL(to, (await credential.getToken()).token) },
    { protocol: plain, autoReconnect: false, messageRetryOptions: { maxRetries: 0 } },
  );
  c.inbox = new Inbox();
  c.ended = new Inbox();
  c.on('group-message', (e) => c.inbox.push([e.message.group, e.message.fromUserId, words(e.message.data)]));
  c.on('server-message', (e) => c.inbox.push(['server', e.message.data]));
  c.on('disconnected', (e) => c.ended.push(e.message?.message));
  const connected = new Promise((resolve) => c.on('connected', resolve));
  t.after(() => c.stop());
  await c.start();
  c.userId = (await connected).userId;
  return c;
}

const by = (token) => new AzureCommunicationTokenCredential(token);

test('a user is known by its id, and does what its scopes are worth', async (t) => {
  const [ann, bo] = [await newUser('chat'), await newUser('chat.join', 'voip')];
  const [speaker, listener] = [await open(t, by(ann.token)), await open(t, by(bo.token))];
  assert.deepEqual([speaker.userId, listener.userId], [ann.id, bo.id]);
  await speaker.joinGroup('room');
  await listener.joinGroup('room');
  await speaker.sendToGroup('room', 'hi', 'text');
  for (const c of [speaker, listener]) assert.deepEqual(await c.inbox.next(), ['room', ann.id, 'hi']);
  await assert.rejects(listener.sendToGroup('room', 'hi', 'text'), (e) => e.errorDetail?.name === 'Forbidden');
  await service(hub).sendToUser(bo.id, 'to you', asText);
  assert.deepEqual(await listener.inbox.next(), ['server', 'to you']);
});

test('hubs that no scope of a token opens', async (t) => {
  const [ann, bo] = [await newUser('chat'), await newUser('voip')];
  await assert.rejects(open(t, by(ann.token), 'elsewhere'));
  assert.deepEqual(await refusal(clientURL('elsewhere', ann.token)), [403, 'user.hub']);
  assert.deepEqual(await refusal(mqttURL('elsewhere', ann.token), ['mqtt']), [403, 'user.hub']);
  assert.deepEqual(await refusal(clientURL(hub, bo.token)), [403, 'user.hub']);
  assert.deepEqual(await refusal(clientURL(hub, ann.token.replace(/.{8}$/, 'AAAAAAAA'))), [401, 'user.signature']);
});

for (const [what, end, rule] of [
  ['revoked', (user) => identity.revokeTokens(user), 'user.revoked'],
  ['deleted', (user) => identity.deleteUser(user), 'user.deleted'],
]) {
  test(`${what}: connections end, and the token opens nothing`, async (t) => {
    const [ann, bo] = [await newUser('chat'), await newUser('chat')];
    const [phone, desk, other] = [await open(t, by(ann.token)), await open(t, by(ann.token)), await open(t, by(bo.token))];
    const { client } = await mqttOpen(t, ann.token);
    const gone = once(client, 'close');
    await end(ann.user);
    // From here on the token counts no more, wherever the closing has got to.
    assert.deepEqual(await refusal(clientURL(hub, ann.token)), [401, rule]);
    assert.deepEqual(await refusal(mqttURL(hub, ann.token), ['mqtt']), [401, rule]);
    await assert.rejects(open(t, by(ann.token)));
    for (const c of [phone, desk]) assert.match(await c.ended.next(), /The access tokens of the user were revoked\./);
    await gone;
    await service(hub).sendToUser(bo.id, 'still here', asText);
    assert.deepEqual(await other.inbox.next(), ['server', 'still here']);
    if (what === 'revoked') {
      const again = await open(t, by((await identity.getToken(ann.user, ['chat'])).token));
      assert.equal(again.userId, ann.id);
    }
  });
}

test('revoked: a client that would come back, and recover, does not', async (t) => {
  const ann = await newUser('chat');
  const c = new WebPubSubClient(clientURL(hub, ann.token), { reconnectRetryOptions: { maxRetries: 1, retryDelayInMs: 1 } }); // by the reliable protocol
  const stopped = new Promise((resolve) => c.on('stopped', resolve));
  t.after(() => c.stop());
  await c.start();
  await identity.revokeTokens(ann.user);
  await stopped;
});

// mqttOpen connects by MQTT. Clients whose scopes let them in may do as by WebSocket.
async function mqttOpen(t, token) {
  const inbox = new Inbox();
  const client = mqtt.connect(mqttURL(hub, token), { protocolVersion: 5, reconnectPeriod: 0, clientId: `mqtt${process.hrtime.bigint()}` });
  client.on('message', (topic, payload) => inbox.push([topic, payload.toString()]));
  t.after(() => client.endAsync(true));
  await Promise.race([once(client, 'connect'), once(client, 'error').then(([err]) => Promise.reject(err))]);
  return { client, inbox };
}

test('MQTT: the same user, and the same groups', async (t) => {
  const [ann, bo] = [await newUser('chat'), await newUser('chat.join')];
  const [speaker, listener, web] = [await mqttOpen(t, ann.token), await mqttOpen(t, bo.token), await open(t, by(ann.token))];
  await listener.client.subscribeAsync('news', { qos: 1 });
  await web.joinGroup('news');
  await speaker.client.publishAsync('news', 'hi', { qos: 1 });
  assert.deepEqual(await listener.inbox.next(), ['news', 'hi']);
  assert.deepEqual(await web.inbox.next(), ['news', ann.id, 'hi']);
  await assert.rejects(listener.client.publishAsync('news', 'hi', { qos: 1 }), (e) => e.code === 135);
  await service(hub).sendToUser(bo.id, 'to you', asText);
  assert.deepEqual(await listener.inbox.next(), ['$webpubsub/server/messages', 'to you']);
});
