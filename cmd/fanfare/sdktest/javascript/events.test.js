'use strict';
// What the official express middleware is told, and what its answers do.

const assert = require('node:assert/strict');
const { createHmac } = require('node:crypto');
const { test } = require('node:test');
const { bytes, client, json, key, only, raw, refused, secondaryKey, seen, service, text, binary } = require('./fanfare');

const hub = 'events'; // the hub whose events go to handler.js
const rest = service(hub);

test('connect, connected, an event and disconnected carry what they should', async (t) => {
  const ann = await client(t, hub, { userId: 'ann', roles: ['webpubsub.joinLeaveGroup'] }, '&tag=a&tag=b&x=1%202');
  await ann.sendEvent('note', { n: 1 }, 'json');
  await rest.closeConnection(ann.connectionId, { reason: 'done' });

  const events = await seen(ann.connectionId, 4);
  const by = Object.fromEntries(events.map((e) => [e.event, e]));
  assert.equal(by.connect.context.userId, 'ann');
  assert.deepEqual(by.connect.claims.sub, ['ann']);
  assert.deepEqual(by.connect.claims.role, ['webpubsub.joinLeaveGroup']);
  assert.deepEqual(by.connect.query, { tag: ['a', 'b'], x: ['1 2'] }, 'the query without the token');
  assert.deepEqual(by.connect.subprotocols, ['json.webpubsub.azure.v1']);
  assert.deepEqual(by.connect.clientCertificates, []);
  assert.ok(!JSON.stringify(by.connect).includes('Bearer'), 'no credentials reach the handler');
  assert.equal(by.connected.context.userId, 'ann');
  assert.deepEqual(by.user.data, { n: 1 });
  assert.equal(by.user.dataType, 'json');
  assert.equal(by.user.context.eventName, 'note');
  assert.equal(by.disconnected.reason, 'Application server closed the connection. Reason: done');

  const posts = await seen(ann.connectionId, 4, ['headers']);
  const head = Object.fromEntries(posts.map((p) => [p.headers['ce-eventname'], p.headers]));
  const signature = [key, secondaryKey].map((k) => `sha256=${createHmac('sha256', k).update(ann.connectionId).digest('hex')}`).join(',');
  for (const [name, type, id] of [
    ['connect', 'azure.webpubsub.sys.connect', '0'],
    ['connected', 'azure.webpubsub.sys.connected', '1'],
    ['note', 'azure.webpubsub.user.note', '2'],
    ['disconnected', 'azure.webpubsub.sys.disconnected', '3'],
  ]) {
    const h = head[name];
    assert.ok(h, `an event ${name} among ${Object.keys(head)}`);
    assert.equal(h['ce-type'], type);
    assert.equal(h['ce-id'], id, `ce-id of ${name}`);
    assert.equal(h['ce-specversion'], '1.0');
    assert.equal(h['ce-awpsversion'], '1.0');
    assert.equal(h['ce-source'], `/hubs/${hub}/client/${ann.connectionId}`);
    assert.match(h['ce-time'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.equal(h['ce-hub'], hub);
    assert.equal(h['ce-userid'], 'ann');
    assert.equal(h['ce-subprotocol'], name === 'connect' ? undefined : 'json.webpubsub.azure.v1', `ce-subprotocol of ${name}`);
    assert.equal(h['webhook-request-origin'], '127.0.0.1');
    assert.equal(h['ce-signature'], signature, 'signed with both keys');
    assert.match(h['content-type'], /^application\/json/);
  }
});

test('the handler denies: the client sees the status, and no event follows', async () => {
  for (const [name, status] of [['deny', 401], ['forbid', 400]]) {
    const { url } = await rest.getClientAccessToken({ userId: `eve-${name}` });
    assert.equal(await refused(`${url}&case=${name}`, ['json.webpubsub.azure.v1']), status);
    assert.equal(await rest.userExists(`eve-${name}`), false);
  }
});

test('the SDK client’s start fails when the handler denies', async (t) => {
  await assert.rejects(client(t, hub, { userId: 'eve' }, '&case=deny'));
});

test('the handler changes user, groups and roles', async (t) => {
  const ann = await client(t, hub, { userId: 'ann', groups: ['lobby'], roles: ['webpubsub.sendToGroup'] }, '&case=change');
  assert.equal(ann.userId, 'changed');
  await ann.sendToGroup('welcome', 'hi', 'text');
  await assert.rejects(ann.sendToGroup('lobby', 'hi', 'text'), (e) => e.errorDetail?.name === 'Forbidden');
  await rest.group('lobby').sendToAll({ to: 'lobby' });
  await rest.sendToUser('changed', { to: 'user' });
  await only(hub, { ann: [ann, [text('hi', 'group welcome'), json({ to: 'user' })]] });
  const [connected] = await seen(ann.connectionId, 1, ['connected']);
  assert.equal(connected.context.userId, 'changed');
});

test('the handler takes the user and the roles away; an empty list of groups changes nothing', async (t) => {
  const ann = await client(t, hub, { userId: 'ann', groups: ['lobby'], roles: ['webpubsub.sendToGroup'] }, '&case=strip');
  assert.ok(!ann.userId, `the user is ${JSON.stringify(ann.userId)}`);
  await assert.rejects(ann.sendToGroup('lobby', 'hi', 'text'), (e) => e.errorDetail?.name === 'Forbidden');
  await rest.group('lobby').sendToAll({ to: 'lobby' });
  await only(hub, { ann: [ann, [json({ to: 'lobby' }, 'group lobby')]] });
});

test('a custom subprotocol that the handler chooses makes a plain WebSocket', async (t) => {
  const ws = await raw(t, hub, { query: '&case=custom', protocols: ['chat.v1', 'chat.v2'] });
  assert.equal(ws.protocol, 'chat.v2');
  ws.send('hello');
  assert.equal(await ws.inbox.next(), 'hello', 'the handler’s answer to the event "message"');
});

test('answers to events: text, JSON and binary come back, before the ack', async (t) => {
  const ann = await client(t, hub);
  const answered = async (data, type, want) => {
    await ann.sendEvent('echo', data, type);
    // The ack has been seen, so the answer was: it needs no waiting.
    assert.deepEqual(await Promise.race([ann.inbox.next(), 'nothing before the ack']), want);
  };
  await answered('hi 👋', 'text', text('hi 👋'));
  await answered({ a: [1, null] }, 'json', json({ a: [1, null] }));
  await answered(bytes(0, 1, 255), 'binary', binary([0, 1, 255]));
  await ann.sendEvent('quiet', 'x', 'text'); // an empty answer is no message
  await only(hub, { ann: [ann, []] });
});

test('the handler’s state stays with the connection', async (t) => {
  const ann = await client(t, hub, {}, '&case=state');
  const bo = await client(t, hub);
  await ann.sendEvent('count', 'x', 'text');
  await ann.sendEvent('count', 'x', 'text');
  await bo.sendEvent('count', 'x', 'text');
  await assert.rejects(ann.sendEvent('refuse', 'x', 'text'), (e) => e.errorDetail?.name === 'InternalServerError');
  await ann.sendEvent('count', 'x', 'text');
  await only(hub, { ann: [ann, [json({ count: 11 }), json({ count: 12 }), json({ count: 13 })]], bo: [bo, [json({ count: 1 })]] });
  const [connect] = await seen(ann.connectionId, 1, ['connect']);
  const [connected] = await seen(ann.connectionId, 1, ['connected']);
  assert.deepEqual(connect.context.states, {});
  assert.deepEqual(connected.context.states, { count: 10 });
});

test('a refused event is acked as failed and may be repeated with its ack id; a successful one not', async (t) => {
  const ann = await client(t, hub);
  const failed = (e) => e.errorDetail?.name === 'InternalServerError';
  await assert.rejects(ann.sendEvent('refuse', 'x', 'text', { ackId: 3 }), failed);
  await assert.rejects(ann.sendEvent('refuse', 'x', 'text', { ackId: 3 }), failed);
  assert.equal((await ann.sendEvent('echo', 'once', 'text', { ackId: 3 })).isDuplicated, false);
  assert.equal((await ann.sendEvent('echo', 'twice', 'text', { ackId: 3 })).isDuplicated, true);
  await only(hub, { ann: [ann, [text('once')]] });
  const events = await seen(ann.connectionId, 5);
  assert.deepEqual(events.map((e) => e.context.eventName).sort(), ['connect', 'connected', 'echo', 'refuse', 'refuse']);
});

test('a plain WebSocket’s frames are events, and a refused one ends it', async (t) => {
  const ws = await raw(t, hub, { token: { userId: 'plain' } });
  ws.send('text');
  assert.equal(await ws.inbox.next(), 'text');
  ws.send(Buffer.from([1, 2, 3]));
  assert.deepEqual(await ws.inbox.next(), [1, 2, 3]);

  const silent = await raw(t, 'nohandler', {});
  silent.send('anybody?');
  assert.deepEqual(await silent.closed.next('the close'), [1011, 'Internal server error']);
});

test('disconnected says how the client left', async (t) => {
  const ann = await client(t, hub, { userId: 'leaver' });
  ann.stop();
  const gone = (await seen(ann.connectionId, 1, ['disconnected']))[0];
  assert.equal(gone.context.userId, 'leaver');
  assert.equal(await rest.connectionExists(ann.connectionId), false);
});
