'use strict';
// MQTT.js against a node whose hub "events" is handled by the official express
// middleware, with tokens from the official server SDK.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { WebPubSubServiceClient } = require('@azure/web-pubsub');
const { WebPubSubEventHandler } = require('@azure/web-pubsub-express');
const express = require('express');
const mqtt = require('mqtt');

const key = Buffer.alloc(32, 7).toString('base64');
let node, upstream, endpoint;
let ids = 0;

// Inbox keeps what arrived, in order, until somebody asks for it.
class Inbox {
  #items = [];
  #waiting = [];

  push(item) {
    const take = this.#waiting.shift();
    if (take) take(item);
    else this.#items.push(item);
  }

  next(what) {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`waited 10 s for ${what} and saw nothing`)), 10_000);
      this.#waiting.push((item) => {
        clearTimeout(timer);
        resolve(item);
      });
    });
  }
}

const seen = new Inbox(); // what the event handler was told

before(async () => {
  const handler = new WebPubSubEventHandler('events', {
    path: '/eventhandler',
    handleConnect(req, res) {
      const { username, protocolVersion } = req.mqtt;
      seen.push({ event: 'connect', mqtt: req.mqtt, context: req.context });
      switch (username) {
        case 'stranger':
          res.fail(401, 'who are you?');
          break;
        case 'banned':
          res.failWith({ mqtt: { code: protocolVersion === 5 ? 138 : 5, reason: 'banned', userProperties: [{ name: 'until', value: 'noon' }] } });
          break;
        default:
          res.success({ userId: 'kim', mqtt: { userProperties: [{ name: 'hello', value: 'kim' }] } });
      }
    },
    onConnected: (req) => seen.push({ event: 'connected', context: req.context }),
    onDisconnected: (req) => seen.push({ event: 'disconnected', reason: req.reason, mqtt: req.mqtt, context: req.context }),
    handleUserEvent(req, res) {
      if (req.context.eventName === 'echo') res.success(req.data, req.dataType);
      else res.fail(400, 'no');
    },
  });
  const app = express();
  app.use(handler.getMiddleware());
  upstream = app.listen(0, '127.0.0.1');
  await once(upstream, 'listening');

  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'fanfare-mqtttest-'));
  const config = path.join(dir, 'fanfare.yaml');
  const url = `http://127.0.0.1:${upstream.address().port}/eventhandler`;
  fs.writeFileSync(config, JSON.stringify({
    listen: '127.0.0.1:0',
    accessKeys: { primary: key },
    hubs: { events: { eventHandlers: [{ urlTemplate: url, userEventPattern: '*', systemEvents: ['connect', 'connected', 'disconnected'] }] } },
  }));
  node = spawn(process.env.MQTTTEST_NODE, ['--config', config], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  for await (const chunk of node.stdout.iterator({ destroyOnReturn: false })) {
    printed += chunk;
    const found = /Endpoint=(http:\/\/[^;\s]+)/.exec(printed);
    if (found) {
      endpoint = found[1];
      break;
    }
  }
  node.stdout.resume();
});

after(async () => {
  const exited = once(node, 'exit');
  node.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null], 'the node ends in order');
  upstream.close();
});

const service = (hub) => new WebPubSubServiceClient(`Endpoint=${endpoint};AccessKey=${key};Version=1.0;`, hub, { allowInsecureConnection: true });

// open connects a client that may do all.
async function open(t, hub, options = {}) {
  const roles = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];
  const { url } = await service(hub).getClientAccessToken({ clientProtocol: 'mqtt', userId: 'ann', roles });
  assert.match(url, /^ws:\/\/[^/]+\/clients\/mqtt\/hubs\//);
  const inbox = new Inbox();
  // The library's own ids have an underscore, which Azure does not take.
  const client = mqtt.connect(url, { keepalive: 30, reconnectPeriod: 0, clientId: `c${++ids}`, ...options });
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
    const { client, inbox } = await open(t, 'plain', { protocolVersion });
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
      await assert.rejects(open(t, 'events', { protocolVersion, username, password: 'x' }), (err) => err.code === code, username);
      const { mqtt: said } = await seen.next('connect');
      assert.equal(said.username, username);
      assert.equal(said.password, Buffer.from('x').toString('base64'));
    }
  });

  test(`a session that outlives its connection, version ${protocolVersion}`, async (t) => {
    const { client, inbox, connack } = await open(t, 'plain', {
      protocolVersion, clean: false, clientId: `keeper${protocolVersion}`, reconnectPeriod: 1, properties: { sessionExpiryInterval: 30 }, resubscribe: false,
    });
    assert.equal(connack.sessionPresent, false);
    await client.subscribeAsync(`kept${protocolVersion}`, { qos: 1 });
    const back = once(client, 'connect');
    client.stream.destroy(new Error('cut by the test'));
    await service('plain').group(`kept${protocolVersion}`).sendToAll('meanwhile', { contentType: 'text/plain' });
    const [again] = await back;
    assert.equal(again.sessionPresent, true);
    assert.equal((await inbox.next('what came meanwhile')).text, 'meanwhile');
  });
}

test('a token for other clients opens nothing', async () => {
  const { token } = await service('plain').getClientAccessToken({ userId: 'ann' });
  const req = http.get(`${endpoint}/clients/mqtt/hubs/plain?access_token=${token}`, {
    headers: {
      Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Protocol': 'mqtt',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    },
  });
  const [res] = await once(req, 'response');
  res.resume();
  assert.equal(res.statusCode, 401);
});

test('what servers send', async (t) => {
  const { client, inbox } = await open(t, 'plain', { protocolVersion: 5 });
  await service('plain').sendToUser('ann', { n: 1 });
  const m = await inbox.next('a message');
  assert.deepEqual([m.topic, m.text, m.properties.contentType], ['$webpubsub/server/messages', '{"n":1}', 'application/json']);
  const gone = once(client, 'disconnect');
  await service('plain').closeAllConnections({ reason: 'enough' });
  assert.equal((await gone)[0].reasonCode, 0x98);
});

test('the events of a session, and an answer to one', async (t) => {
  const { client, inbox, connack } = await open(t, 'events', { protocolVersion: 5, clientId: 'kim1', username: 'kim', properties: { userProperties: { a: '1' } } });
  assert.equal(connack.properties.userProperties.hello, 'kim');
  const connect = await seen.next('connect');
  assert.equal(connect.context.clientProtocol, 'mqtt');
  assert.equal(connect.context.connectionId, 'kim1');
  assert.equal(connect.mqtt.protocolVersion, 5);
  assert.deepEqual(connect.mqtt.userProperties, [{ name: 'a', value: '1' }]);
  const connected = await seen.next('connected');
  assert.ok(connected.context.mqtt.sessionId && connected.context.mqtt.physicalConnectionId);

  await client.publishAsync('$webpubsub/server/events/echo', 'hi', { qos: 1, properties: { contentType: 'text/plain', correlationData: Buffer.from('c1') } });
  let m = await inbox.next('the answer');
  assert.deepEqual([m.topic, m.text, m.qos, m.properties.contentType, m.properties.correlationData.toString(), m.properties.userProperties['azure-status-code']],
    ['$webpubsub/server/events/echo/succeeded', 'hi', 1, 'text/plain; charset=utf-8', 'c1', '200']);
  await client.publishAsync('$webpubsub/server/events/other', 'hi', { properties: { contentType: 'text/plain' } });
  m = await inbox.next('the refusal');
  assert.deepEqual([m.topic, m.text, m.properties.userProperties['azure-status-code']], ['$webpubsub/server/events/other/failed', 'no', '400']);

  await client.endAsync(false, { reasonCode: 4, properties: { reasonString: 'good night' } });
  const end = await seen.next('disconnected');
  assert.equal(end.reason, 'good night');
  assert.equal(end.mqtt.initiatedByClient, true);
  assert.equal(end.mqtt.disconnectPacket.code, 4);
});
