'use strict';
// How app servers end connections, and what clients are told.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { client, only, raw, service } = require('./fanfare');

const told = (reason) => `Application server closed the connection.${reason ? ` Reason: ${reason}` : ''}`;
const gone = async (hub, who, c, message) => {
  assert.equal(await c.ended.next(`the end of ${who}`), message, `what ${who} was told`);
  assert.equal(await service(hub).connectionExists(c.connectionId), false, `${who} is gone`);
};

test('one connection, with a reason, a long one and none', async (t) => {
  const hub = 'closeone';
  const s = service(hub);
  for (const reason of ['bye & co', 'x'.repeat(200), undefined]) {
    const ann = await client(t, hub);
    const bo = await client(t, hub);
    await s.closeConnection(ann.connectionId, { reason });
    await gone(hub, 'ann', ann, told(reason));
    await only(hub, { bo: [bo, []] });
  }
  await s.closeConnection('ghost', { reason: 'nobody there' });
});

test('everybody in the hub', async (t) => {
  const hub = 'closeall';
  const ann = await client(t, hub);
  const bo = await client(t, hub);
  const other = await client(t, 'closeallother');
  await service(hub).closeAllConnections({ reason: 'night' });
  await gone(hub, 'ann', ann, told('night'));
  await gone(hub, 'bo', bo, told('night'));
  await only('closeallother', { other: [other, []] });
});

test('a group', async (t) => {
  const hub = 'closegroup';
  const ann = await client(t, hub, { groups: ['room'] });
  const bo = await client(t, hub, { groups: ['room'] });
  const cy = await client(t, hub, { groups: ['hall'] });
  await service(hub).group('room').closeAllConnections({ reason: 'cleaning' });
  await gone(hub, 'ann', ann, told('cleaning'));
  await gone(hub, 'bo', bo, told('cleaning'));
  await only(hub, { cy: [cy, []] });
});

test('a user', async (t) => {
  const hub = 'closeuser';
  const phone = await client(t, hub, { userId: 'ann' });
  const desk = await client(t, hub, { userId: 'ann' });
  const bo = await client(t, hub, { userId: 'bo' });
  await service(hub).closeUserConnections('ann', { reason: 'logged out' });
  await gone(hub, 'phone', phone, told('logged out'));
  await gone(hub, 'desk', desk, told('logged out'));
  await only(hub, { bo: [bo, []] });
});

test('on the wire: the disconnected message, then close 1000 without a reason', async (t) => {
  const hub = 'closewire';
  const ws = await raw(t, hub, { token: { userId: 'ann' }, protocols: ['json.webpubsub.azure.v1'] });
  const { event } = JSON.parse(await ws.inbox.next());
  assert.equal(event, 'connected');
  await service(hub).closeUserConnections('ann', { reason: 'why not' });
  assert.deepEqual(JSON.parse(await ws.inbox.next()), { type: 'system', event: 'disconnected', message: told('why not') });
  assert.deepEqual(await ws.closed.next('the close'), [1000, '']);
});
