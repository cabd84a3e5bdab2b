'use strict';
// A browser's own WebSockets, an SDK client and the app server in one group.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { open } = require('./browser');
const { asText, binary, bytes, client, gathered, json, service, text } = require('../fanfare');

const anything = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];

test('a browser and an SDK client receive each other’s text, JSON and binary, and what REST sends', async (t) => {
  const hub = 'browser';
  const from = 'group room';
  const sdk = await client(t, hub, { userId: 'sdk', roles: anything, groups: ['room'] });
  const browser = await open(t);
  const page = await browser.newPage();
  const url = async (userId) => (await service(hub).getClientAccessToken({ userId, roles: anything, groups: ['room'] })).url;

  // One socket speaks the JSON subprotocol, the other none; each keeps what it receives.
  await page.evaluate(async ([jsonURL, plainURL]) => {
    const open = (url, protocols) => new Promise((resolve, reject) => {
      const ws = new WebSocket(url, protocols);
      ws.binaryType = 'arraybuffer';
      ws.seen = [];
      ws.onmessage = ({ data }) => ws.seen.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
      ws.onopen = () => resolve(ws);
      ws.onerror = () => reject(new Error(`no connection to ${url}`));
    });
    window.jsonSocket = await open(jsonURL, ['json.webpubsub.azure.v1']);
    window.plainSocket = await open(plainURL, []);
  }, [await url('page'), `${await url('plain')}&webpubsub_mode=sendToGroup&group=room`]);

  await gathered(hub, 'room', 3);
  await sdk.sendToGroup('room', 'from the SDK 👋', 'text', { noEcho: true });
  await sdk.sendToGroup('room', { sdk: [1] }, 'json', { noEcho: true });
  await sdk.sendToGroup('room', bytes(0, 255), 'binary', { noEcho: true });

  await page.evaluate(() => {
    const say = (m) => jsonSocket.send(JSON.stringify({ type: 'sendToGroup', group: 'room', ...m }));
    say({ dataType: 'text', data: 'from the page 👋' });
    say({ dataType: 'json', data: { page: [2] } });
    say({ dataType: 'binary', data: btoa('\x01\x02') });
  });
  assert.deepEqual(await sdk.inbox.take(3), [text('from the page 👋', from), json({ page: [2] }, from), binary([1, 2], from)]);

  await page.evaluate(() => {
    plainSocket.send('plain text 👋');
    plainSocket.send(new Uint8Array([3, 4]));
  });
  assert.deepEqual(await sdk.inbox.take(2), [text('plain text 👋', from), binary([3, 4], from)]);

  const room = service(hub).group('room');
  await room.sendToAll('from REST', asText);
  await room.sendToAll({ rest: [3] });
  await room.sendToAll(bytes(5));
  assert.deepEqual(await sdk.inbox.take(3), [text('from REST', from), json({ rest: [3] }, from), binary([5], from)]);

  const seen = async (socket, count) => {
    await page.waitForFunction(([socket, count]) => window[socket].seen.length >= count, [socket, count], { timeout: 60_000 });
    return page.evaluate((socket) => window[socket].seen, socket);
  };
  assert.deepEqual(await seen('plainSocket', 11), [
    'from the SDK 👋', '{"sdk":[1]}', [0, 255],
    'from the page 👋', '{"page":[2]}', [1, 2],
    'plain text 👋', [3, 4],
    'from REST', '{"rest":[3]}', [5],
  ]);
  const [connected, ...messages] = (await seen('jsonSocket', 12)).map((m) => JSON.parse(m));
  assert.equal(connected.userId, 'page');
  assert.deepEqual(messages.map((m) => [m.from, m.group, m.fromUserId, m.dataType, m.data]), [
    ['group', 'room', 'sdk', 'text', 'from the SDK 👋'],
    ['group', 'room', 'sdk', 'json', { sdk: [1] }],
    ['group', 'room', 'sdk', 'binary', 'AP8='],
    ['group', 'room', 'page', 'text', 'from the page 👋'],
    ['group', 'room', 'page', 'json', { page: [2] }],
    ['group', 'room', 'page', 'binary', 'AQI='],
    ['group', 'room', 'plain', 'text', 'plain text 👋'],
    ['group', 'room', 'plain', 'binary', 'AwQ='],
    ['group', 'room', undefined, 'text', 'from REST'],
    ['group', 'room', undefined, 'json', { rest: [3] }],
    ['group', 'room', undefined, 'binary', 'BQ=='],
  ]);
});
