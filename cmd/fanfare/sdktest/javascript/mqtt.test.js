'use strict';
// MQTT.js with tokens of the official server SDK; the events of hub "mqtt" go to the
// official express middleware.

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { once } = require('node:events');
const { test } = require('node:test');
const mqtt = require('mqtt');
const { Inbox, asText, endpoint, refused, seen, service } = require('./fanfare');

const hub = 'mqtt'; // the hub whose events go to handler.js

// newID makes a client id. Those that the library makes have an underscore, which
// Azure does not take.
const newID = () => randomBytes(8).toString('hex');

// open connects a client that may do all.
async function open(t, hub, options = {}) {
  const roles = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];
  const { url } = await service(hub).getClientAccessToken({ clientProtocol: 'mqtt', userId: 'ann', roles });
  assert.ok(url.startsWith(`${endpoint.replace('http', 'ws')}/clients/mqtt/hubs/${hub}?`), url);
  const inbox = new Inbox();
  const client = mqtt.connect(url, { keepalive: 30, reconnectPeriod: 0, clientId: newID(), ...options });
  client.on('message', (topic, payload, packet) => inbox.push({ topic, text: payload.toString(), qos: packet.qos, properties: packet.properties }));
  t.after(() => client.endAsync(true));
  const [connack] = await Promise.race([
    once(client, 'connect'),
    once(client, 'error').then(([err]) => Promise.reject(err)),
  ]);
  return { client, inbox, connack };
}

for (const protocolVersion of [4, 5]) {
  test(`QoS 0, 1 and 2, version ${protocolVersion}`, async (t) => {
    const { client, inbox } = await open(t, 'qos', { protocolVersion });
    assert.deepEqual((await client.subscribeAsync('news', { qos: 2 })).map((g) => g.qos), [2]);
    for (const qos of [0, 1, 2]) {
      await client.publishAsync('news', `QoS ${qos}`, { qos });
      const m = await inbox.next(`QoS ${qos}`);
      assert.deepEqual([m.topic, m.text, m.qos], ['news', `QoS ${qos}`, qos]);
    }
    await client.unsubscribeAsync('news');
  });

  test(`the SDK's refusals, version ${protocolVersion}`, async (t) => {
    const codes = protocolVersion === 5 ? { stranger: 135, banned: 138 } : { stranger: 5, banned: 5 };
    for (const [username, code] of Object.entries(codes)) {
      const clientId = newID();
      await assert.rejects(open(t, hub, { protocolVersion, clientId, username, password: 'x' }), (err) => err.code === code, username);
      const [{ mqtt: said }] = await seen(clientId, 1, ['connect']);
      assert.equal(said.username, username);
      assert.equal(said.password, Buffer.from('x').toString('base64'));
    }
  });

  test(`a session that outlives its connection, version ${protocolVersion}`, async (t) => {
    const { client, inbox, connack } = await open(t, 'sessions', {
      protocolVersion, clean: false, reconnectPeriod: 1, properties: { sessionExpiryInterval: 30 }, resubscribe: false,
    });
    assert.equal(connack.sessionPresent, false);
    await client.subscribeAsync(`kept${protocolVersion}`, { qos: 1 });
    const back = once(client, 'connect');
    client.stream.destroy(new Error('cut by the test'));
    await service('sessions').group(`kept${protocolVersion}`).sendToAll('meanwhile', asText);
    const [again] = await back;
    assert.equal(again.sessionPresent, true);
    assert.equal((await inbox.next('what came meanwhile')).text, 'meanwhile');
  });
}

test('a token for other clients opens nothing', async () => {
  const { token } = await service('qos').getClientAccessToken({ userId: 'ann' });
  const url = `${endpoint.replace('http', 'ws')}/clients/mqtt/hubs/qos?access_token=${token}`;
  assert.equal(await refused(url, ['mqtt']), 401);
});

test('what servers send', async (t) => {
  const { client, inbox } = await open(t, 'mqttservers', { protocolVersion: 5 });
  await service('mqttservers').sendToUser('ann', { n: 1 });
  const m = await inbox.next('a message');
  assert.deepEqual([m.topic, m.text, m.properties.contentType], ['$webpubsub/server/messages', '{"n":1}', 'application/json']);
  const gone = once(client, 'disconnect');
  await service('mqttservers').closeAllConnections({ reason: 'enough' });
  assert.equal((await gone)[0].reasonCode, 0x98);
});

test('the events of a session, and an answer to one', async (t) => {
  const clientId = newID();
  const { client, inbox, connack } = await open(t, hub, { protocolVersion: 5, clientId, username: 'kim', properties: { userProperties: { a: '1' } } });
  assert.equal(connack.properties.userProperties.hello, 'kim');
  const [connect] = await seen(clientId, 1, ['connect']);
  assert.equal(connect.context.clientProtocol, 'mqtt');
  assert.equal(connect.context.connectionId, clientId);
  assert.equal(connect.mqtt.protocolVersion, 5);
  assert.deepEqual(connect.mqtt.userProperties, [{ name: 'a', value: '1' }]);
  const [connected] = await seen(clientId, 1, ['connected']);
  assert.ok(connected.context.mqtt.sessionId && connected.context.mqtt.physicalConnectionId);

  await client.publishAsync('$webpubsub/server/events/echo', 'hi', { qos: 1, properties: { contentType: 'text/plain', correlationData: Buffer.from('c1') } });
  let m = await inbox.next('the answer');
  assert.deepEqual([m.topic, m.text, m.qos, m.properties.contentType, m.properties.correlationData.toString(), m.properties.userProperties['azure-status-code']],
    ['$webpubsub/server/events/echo/succeeded', 'hi', 1, 'text/plain; charset=utf-8', 'c1', '200']);
  await client.publishAsync('$webpubsub/server/events/refuse', 'hi', { properties: { contentType: 'text/plain' } });
  m = await inbox.next('the refusal');
  assert.deepEqual([m.topic, m.text, m.properties.userProperties['azure-status-code']], ['$webpubsub/server/events/refuse/failed', 'no', '400']);

  await client.endAsync(false, { reasonCode: 4, properties: { reasonString: 'good night' } });
  const [end] = await seen(clientId, 1, ['disconnected']);
  assert.equal(end.reason, 'good night');
  assert.equal(end.mqtt.initiatedByClient, true);
  assert.equal(end.mqtt.disconnectPacket.code, 4);
});
