'use strict';
// What SDK clients do to each other: groups, acks, echoes. And an SDK client and
// a plain WebSocket side by side.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { asText, binary, bytes, client, gathered, json, only, raw, service, text } = require('./fanfare');

const anything = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];

test('clients talk in a group: text, JSON, binary', async (t) => {
  const hub = 'clients';
  const ann = await client(t, hub, { userId: 'ann', roles: anything });
  const bo = await client(t, hub, { userId: 'bo', roles: anything });
  const cy = await client(t, hub, { userId: 'cy', roles: anything });
  const senders = [];
  bo.on('group-message', (e) => senders.push(e.message.fromUserId));
  for (const c of [ann, bo, cy]) await c.joinGroup('room');
  await cy.leaveGroup('room');
  await ann.sendToGroup('room', 'hi 👋', 'text');
  await ann.sendToGroup('room', { n: [1, 2] }, 'json');
  await ann.sendToGroup('room', 'quoted', 'json');
  await ann.sendToGroup('room', bytes(0, 128, 255), 'binary');
  const all = [text('hi 👋', 'group room'), json({ n: [1, 2] }, 'group room'), json('quoted', 'group room'), binary([0, 128, 255], 'group room')];
  await only(hub, { ann: [ann, all], bo: [bo, all], cy: [cy, []] });
  assert.deepEqual(senders, ['ann', 'ann', 'ann', 'ann'], 'fromUserId of what bo received');
});

test('noEcho leaves out the sender alone, fireAndForget asks for no ack', async (t) => {
  const hub = 'echo';
  const phone = await client(t, hub, { userId: 'ann', roles: anything, groups: ['room'] });
  const desk = await client(t, hub, { userId: 'ann', roles: anything, groups: ['room'] });
  await phone.sendToGroup('room', 'quiet', 'text', { noEcho: true });
  await phone.sendToGroup('room', 'forgotten', 'text', { fireAndForget: true });
  await phone.sendToGroup('room', 'asked', 'text');
  await only(hub, {
    phone: [phone, [text('forgotten', 'group room'), text('asked', 'group room')]],
    desk: [desk, [text('quiet', 'group room'), text('forgotten', 'group room'), text('asked', 'group room')]],
  });
});

test('a repeated ack id is a duplicate and has no effect', async (t) => {
  const hub = 'acks';
  const ann = await client(t, hub, { roles: anything, groups: ['room'] });
  const first = await ann.sendToGroup('room', 'once', 'text', { ackId: 7 });
  assert.deepEqual(first, { ackId: 7, isDuplicated: false });
  const again = await ann.sendToGroup('room', 'twice', 'text', { ackId: 7 });
  assert.deepEqual(again, { ackId: 7, isDuplicated: true });
  const left = await ann.leaveGroup('room', { ackId: 7 });
  assert.equal(left.isDuplicated, true);
  await service(hub).group('room').sendToAll('still a member', asText);
  await only(hub, { ann: [ann, [text('once', 'group room'), text('still a member', 'group room')]] });
});

test('an ack id whose request was refused may be used again', async (t) => {
  const hub = 'ackretry';
  const ann = await client(t, hub);
  await assert.rejects(ann.joinGroup('room', { ackId: 5 }), (e) => e.errorDetail?.name === 'Forbidden');
  await service(hub).grantPermission(ann.connectionId, 'joinLeaveGroup', { targetName: 'room' });
  assert.deepEqual(await ann.joinGroup('room', { ackId: 5 }), { ackId: 5, isDuplicated: false });
});

test('an event without a handler is refused, and the connection stays open', async (t) => {
  const hub = 'unhandled';
  const ann = await client(t, hub);
  await assert.rejects(ann.sendEvent('order.placed', 'x', 'text'), (e) => {
    assert.deepEqual(e.errorDetail?.name, 'InternalServerError');
    return true;
  });
  await only(hub, { ann: [ann, []] });
});

test('an SDK client, a plain WebSocket and the app server in one group', async (t) => {
  const hub = 'mixed';
  const sdk = await client(t, hub, { userId: 'sdk', roles: anything, groups: ['room'] });
  const json1 = await raw(t, hub, { token: { userId: 'json', roles: anything, groups: ['room'] }, protocols: ['json.webpubsub.azure.v1'] });
  assert.equal(JSON.parse(await json1.inbox.next()).event, 'connected');
  const plain = await raw(t, hub, {
    token: { userId: 'plain', roles: anything, groups: ['room'] },
    query: '&webpubsub_mode=sendToGroup&group=room&noEcho=true',
  });
  assert.equal(plain.protocol, '', 'a plain WebSocket has no subprotocol');
  await gathered(hub, 'room', 3);

  // The SDK client speaks.
  await sdk.sendToGroup('room', 'hi', 'text');
  await sdk.sendToGroup('room', { a: 1 }, 'json');
  await sdk.sendToGroup('room', bytes(0, 255), 'binary');
  // The plain WebSockets speak, each once the one before was heard.
  const group = 'group room';
  assert.deepEqual(await sdk.inbox.take(3), [text('hi', group), json({ a: 1 }, group), binary([0, 255], group)]);
  for (const m of [
    { dataType: 'text', data: 'from json' },
    { dataType: 'json', data: { b: [2] } },
    { dataType: 'binary', data: Buffer.from([1, 2]).toString('base64') },
  ]) {
    json1.send(JSON.stringify({ type: 'sendToGroup', group: 'room', ...m }));
  }
  assert.deepEqual(await sdk.inbox.take(3), [text('from json', group), json({ b: [2] }, group), binary([1, 2], group)]);
  plain.send('from plain');
  plain.send(Buffer.from([3, 4]));
  assert.deepEqual(await sdk.inbox.take(2), [text('from plain', group), binary([3, 4], group)]);
  // The app server speaks.
  await service(hub).group('room').sendToAll('from REST', asText);
  await service(hub).group('room').sendToAll({ c: 3 });
  await service(hub).group('room').sendToAll(bytes(5));
  assert.deepEqual(await sdk.inbox.take(3), [text('from REST', group), json({ c: 3 }, group), binary([5], group)]);

  assert.deepEqual(await plain.inbox.take(9), [
    'hi', '{"a":1}', [0, 255], // the SDK client
    'from json', '{"b":[2]}', [1, 2], // the JSON client; its own words are left out
    'from REST', '{"c":3}', [5], // the app server
  ]);
  const frame = (fromUserId, dataType, data) => ({ type: 'message', from: 'group', group: 'room', ...(fromUserId && { fromUserId }), dataType, data });
  assert.deepEqual((await json1.inbox.take(11)).map((m) => JSON.parse(m)), [
    frame('sdk', 'text', 'hi'),
    frame('sdk', 'json', { a: 1 }),
    frame('sdk', 'binary', 'AP8='),
    frame('json', 'text', 'from json'),
    frame('json', 'json', { b: [2] }),
    frame('json', 'binary', 'AQI='),
    frame('plain', 'text', 'from plain'),
    frame('plain', 'binary', 'AwQ='),
    frame('', 'text', 'from REST'),
    frame('', 'json', { c: 3 }),
    frame('', 'binary', 'BQ=='),
  ]);
});
