'use strict';
// What the suites share: clients for the node that go test started, and inboxes
// that let a test wait for what a client receives instead of sleeping.

const assert = require('node:assert/strict');
const { once } = require('node:events');
const net = require('node:net');
const { WebPubSubServiceClient } = require('@azure/web-pubsub');
const { WebPubSubClient, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } = require('@azure/web-pubsub-client');
const WebSocket = require('ws');

const { FANFARE_CONNECTION_STRING: connectionString, FANFARE_ENDPOINT: endpoint, FANFARE_KEY: key, FANFARE_SECONDARY_KEY: secondaryKey } = process.env;

// The SDK refuses plain HTTP unless it is told that this is meant.
const options = { allowInsecureConnection: endpoint.startsWith('http:') };

const service = (hub, string = connectionString) => new WebPubSubServiceClient(string, hub, options);

// Inbox keeps what arrived, in order, until somebody asks for it.
class Inbox {
  #items = [];
  #waiting = [];

  push(item) {
    const take = this.#waiting.shift();
    if (take) take(item);
    else this.#items.push(item);
  }

  // next resolves to the oldest item that nobody has taken yet.
  next(what = 'a message') {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`waited a minute for ${what} and saw nothing`)), 60_000);
      this.#waiting.push((item) => {
        clearTimeout(timer);
        resolve(item);
      });
    });
  }

  // take resolves to the next n items.
  async take(n) {
    const items = [];
    while (items.length < n) items.push(await this.next(`message ${items.length + 1} of ${n} after ${JSON.stringify(items)}`));
    return items;
  }
}

const plain = WebPubSubJsonProtocol();
const reliable = WebPubSubJsonReliableProtocol();

// plainData makes binary payloads comparable: the SDK hands out ArrayBuffers.
const plainData = (data) => (data instanceof ArrayBuffer || Buffer.isBuffer(data) ? [...new Uint8Array(data)] : data);

// summary is what a test compares of a message: from whom, of what type, and what.
function summary({ message }) {
  const { kind, group, dataType, data } = message;
  return kind === 'groupData' ? [`group ${group}`, dataType, plainData(data)] : ['server', dataType, plainData(data)];
}

// client opens an SDK client of a hub. token are options of getClientAccessToken;
// query is added to the URL, where the connect handler sees it. Without a wish the
// client speaks the plain protocol, which hides no lost connection.
async function client(t, hub, token = {}, query = '', { protocol = plain, through = connectionString } = {}) {
  const { url } = await service(hub, through).getClientAccessToken(token);
  const c = new WebPubSubClient(url + query, {
    protocol,
    autoReconnect: false,
    messageRetryOptions: { maxRetries: 0 }, // a refusal is shown at once, not after three more tries
  });
  c.inbox = new Inbox();
  c.ended = new Inbox();
  c.on('group-message', (e) => c.inbox.push(summary(e)));
  c.on('server-message', (e) => c.inbox.push(summary(e)));
  c.on('disconnected', (e) => c.ended.push(e.message?.message));
  const connected = new Promise((resolve) => c.on('connected', resolve));
  t.after(() => c.stop());
  await c.start();
  const { connectionId, userId } = await connected;
  assert.ok(connectionId, 'the connected message names the connection');
  return Object.assign(c, { connectionId, userId });
}

// lossy is a way to the node on which connections get lost: cut ends all of them.
async function lossy(t) {
  const { host, hostname, port } = new URL(endpoint);
  const open = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(port, hostname);
    open.add(near);
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('error', () => {}); // its close follows
      from.on('close', () => to.destroy());
      from.pipe(to);
    }
    near.on('close', () => open.delete(near));
  });
  const cut = () => open.forEach((socket) => socket.resetAndDestroy());
  t.after(() => {
    server.close();
    cut();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { cut, connectionString: connectionString.replace(host, `127.0.0.1:${server.address().port}`) };
}

// opened opens a plain WebSocket, as a browser would.
async function opened(t, url, protocols = []) {
  const ws = new WebSocket(url, protocols);
  ws.inbox = new Inbox();
  ws.closed = new Inbox();
  ws.on('message', (data, isBinary) => ws.inbox.push(isBinary ? [...data] : data.toString()));
  ws.on('close', (code, reason) => ws.closed.push([code, reason.toString()]));
  t.after(() => ws.terminate());
  await once(ws, 'open');
  return ws;
}

// raw opens a plain WebSocket of a hub, with a token and the subprotocols given.
async function raw(t, hub, { token = {}, query = '', protocols = [] } = {}) {
  const { url } = await service(hub).getClientAccessToken(token);
  return opened(t, url + query, protocols);
}

// gathered waits until a group has so many members. A plain WebSocket is open
// with the answer to its handshake, and hears from then on or a moment later:
// there is no message that would tell.
async function gathered(hub, group, count) {
  for (const end = Date.now() + 60_000; ; ) {
    let n = 0;
    for await (const _ of await service(hub).group(group).listConnections()) n++;
    if (n === count) return;
    assert.ok(Date.now() < end, `waited a minute for ${count} members of ${group}, there are ${n}`);
  }
}

// seen returns what handler.js saw of a connection once there are count events of
// the kinds asked for.
async function seen(connectionId, count, kinds = ['connect', 'connected', 'disconnected', 'user']) {
  let list = [];
  for (let n = count; ; n = list.length + 1) {
    const before = list.length;
    const url = `${process.env.FANFARE_HANDLER}/seen?connectionId=${connectionId}&count=${n}`;
    list = await (await fetch(url)).json();
    const found = list.filter((e) => kinds.includes(e.event));
    if (found.length >= count) return found;
    assert.notEqual(list.length, before, `the handler saw only ${JSON.stringify(found)}, want ${count} of ${kinds}`);
  }
}

// refused is the HTTP status that an upgrade is refused with.
function refused(url, protocols = []) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url, protocols);
    ws.on('unexpected-response', (_, response) => {
      response.resume();
      resolve(response.statusCode);
      ws.terminate();
    });
    ws.on('open', () => {
      reject(new Error('the upgrade was accepted'));
      ws.terminate();
    });
    ws.on('error', () => {}); // follows terminate
  });
}

// only checks that a client received exactly the messages expected, and nothing
// besides: it sends one last message to the connection, which what was answered
// before cannot overtake, and takes all up to it.
async function only(hub, receivers) {
  for (const [who, [c, expected]] of Object.entries(receivers)) {
    await service(hub).sendToConnection(c.connectionId, 'END', { contentType: 'text/plain' });
    const seen = [];
    for (;;) {
      const m = await c.inbox.next(`the end of what ${who} receives, after ${JSON.stringify(seen)}`);
      if (m[0] === 'server' && m[2] === 'END') break;
      seen.push(m);
    }
    assert.deepEqual(seen, expected, `what ${who} received`);
  }
}

const text = (data, from = 'server') => [from, 'text', data];
const json = (data, from = 'server') => [from, 'json', data];
const binary = (data, from = 'server') => [from, 'binary', data];
const asText = { contentType: 'text/plain' };
const bytes = (...b) => new Uint8Array(b).buffer;

module.exports = { Inbox, asText, binary, bytes, client, connectionString, endpoint, gathered, json, key, lossy, only, opened, options, plain, raw, refused, reliable, secondaryKey, seen, service, text };
