'use strict';
// What a client of the reliable protocol finds again on its next connection.
// TestReliableJavaScript counts its messages.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { client, lossy, reliable, seen, service, text, asText } = require('./fanfare');

const hub = 'events'; // the hub whose events go to handler.js
const rest = service(hub);

test('groups, grants, ack ids and the handler’s state outlive a connection, and its handler sees no other', async (t) => {
  const way = await lossy(t);
  const ann = await client(t, hub, { userId: 'ann' }, '&case=state', { protocol: reliable, through: way.connectionString });
  await rest.grantPermission(ann.connectionId, 'joinLeaveGroup', { targetName: 'lossyroom' });
  await rest.grantPermission(ann.connectionId, 'sendToGroup', { targetName: 'lossyroom' });
  await ann.joinGroup('lossyroom');
  await ann.sendToGroup('lossyroom', 'once', 'text', { ackId: 70 });
  await ann.sendEvent('count', 'x', 'text');
  assert.deepEqual(await ann.inbox.take(2), [text('once', 'group lossyroom'), ['server', 'json', { count: 11 }]]);

  way.cut();
  await rest.group('lossyroom').sendToAll('meanwhile', asText);
  assert.deepEqual(await ann.inbox.next(), text('meanwhile', 'group lossyroom')); // so the client is back

  assert.deepEqual(await ann.sendToGroup('lossyroom', 'twice', 'text', { ackId: 70 }), { ackId: 70, isDuplicated: true });
  await ann.sendToGroup('lossyroom', 'again', 'text');
  await ann.sendEvent('count', 'x', 'text');
  assert.deepEqual(await ann.inbox.take(2), [text('again', 'group lossyroom'), ['server', 'json', { count: 12 }]]);

  await rest.closeConnection(ann.connectionId, { reason: 'done' });
  assert.equal(await ann.ended.next('the end'), 'Application server closed the connection. Reason: done');
  const events = await seen(ann.connectionId, 5);
  assert.deepEqual(events.map((e) => e.event).sort(), ['connect', 'connected', 'disconnected', 'user', 'user']);
});

test('a client that stops is gone at once, though it could be recovered', async (t) => {
  const ann = await client(t, hub, { userId: 'stopper' }, '', { protocol: reliable });
  ann.stop(); // closes without a status
  await seen(ann.connectionId, 1, ['disconnected']);
  assert.equal(await rest.connectionExists(ann.connectionId), false);
});
