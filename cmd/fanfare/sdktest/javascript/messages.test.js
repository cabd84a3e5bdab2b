'use strict';
// What app servers send and who receives it.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { odata } = require('@azure/web-pubsub');
const { asText, binary, bytes, client, json, only, service, text } = require('./fanfare');

test('text, JSON and binary reach everybody in the hub', async (t) => {
  const hub = 'toall';
  const ann = await client(t, hub, { userId: 'ann' });
  const bo = await client(t, hub);
  const s = service(hub);
  await s.sendToAll('grüße 👋', asText);
  await s.sendToAll({ n: 1, list: [true, null, 'x'] });
  await s.sendToAll('a JSON string');
  await s.sendToAll(bytes(0, 1, 255));
  const all = [text('grüße 👋'), json({ n: 1, list: [true, null, 'x'] }), json('a JSON string'), binary([0, 1, 255])];
  await only(hub, { ann: [ann, all], bo: [bo, all] });
});

test('an empty text is a message too', async (t) => {
  const hub = 'empty';
  const ann = await client(t, hub);
  await service(hub).sendToAll('', asText);
  await only(hub, { ann: [ann, [text('')]] });
});

test('sends to all leave out the excluded and those a filter does not select', async (t) => {
  const hub = 'alloptions';
  const ann = await client(t, hub, { userId: 'ann' });
  const bo = await client(t, hub, { userId: "bo's" });
  const cy = await client(t, hub, { userId: 'cy', groups: ['staff'] });
  const s = service(hub);
  await s.sendToAll('not ann', { ...asText, excludedConnections: [ann.connectionId, 'nobody'] });
  await s.sendToAll({ only: "bo's" }, { filter: odata`userId eq ${"bo's"}` });
  await s.sendToAll('staff', { ...asText, filter: "'staff' in groups", messageTtlSeconds: 60 });
  await s.sendToAll('by protocol', { ...asText, filter: "protocol eq 'json.webpubsub.azure.v1' and not (userId eq 'cy')" });
  await only(hub, {
    ann: [ann, [text('by protocol')]],
    bo: [bo, [text('not ann'), json({ only: "bo's" }), text('by protocol')]],
    cy: [cy, [text('not ann'), text('staff')]],
  });
});

test('a group send reaches the members, says which group, and honours its options', async (t) => {
  const hub = 'togroup';
  const group = 'room/a b+ü'; // what needs escaping in a path
  const ann = await client(t, hub, { userId: 'ann' });
  const bo = await client(t, hub, { userId: 'bo' });
  const cy = await client(t, hub, { userId: 'cy' });
  const g = service(hub).group(group);
  for (const c of [ann, bo]) await g.addConnection(c.connectionId);
  await g.sendToAll('hi', asText);
  await g.sendToAll({ a: 1 }, { excludedConnections: [ann.connectionId] });
  await g.sendToAll(bytes(7), { filter: "startswith(userId, 'a')", messageTtlSeconds: 300 });
  const from = 'group room/a b+ü';
  await only(hub, {
    ann: [ann, [text('hi', from), binary([7], from)]],
    bo: [bo, [text('hi', from), json({ a: 1 }, from)]],
    cy: [cy, []],
  });
});

test('a user send reaches all connections of the user, a filter some of them', async (t) => {
  const hub = 'touser';
  const phone = await client(t, hub, { userId: 'ann', groups: ['phones'] });
  const desk = await client(t, hub, { userId: 'ann' });
  const bo = await client(t, hub, { userId: 'bo' });
  const s = service(hub);
  await s.sendToUser('ann', 'hi', asText);
  await s.sendToUser('ann', { ring: true }, { filter: "'phones' in groups" });
  await s.sendToUser('ann', bytes(1, 2), { messageTtlSeconds: 1 });
  await s.sendToUser('nobody', 'lost', asText);
  await only(hub, {
    phone: [phone, [text('hi'), json({ ring: true }), binary([1, 2])]],
    desk: [desk, [text('hi'), binary([1, 2])]],
    bo: [bo, []],
  });
});

test('a connection send reaches one connection', async (t) => {
  const hub = 'toconnection';
  const ann = await client(t, hub, { userId: 'ann' });
  const other = await client(t, hub, { userId: 'ann' });
  const s = service(hub);
  await s.sendToConnection(ann.connectionId, 'hi', { ...asText, messageTtlSeconds: 10 });
  await s.sendToConnection(ann.connectionId, { a: [1] });
  await s.sendToConnection(ann.connectionId, bytes(9));
  await s.sendToConnection('no-such-connection', 'lost', asText);
  await only(hub, { ann: [ann, [text('hi'), json({ a: [1] }), binary([9])]], other: [other, []] });
});

test('what is wrong with a send is said, and nobody receives it', async (t) => {
  const hub = 'wrongsends';
  const ann = await client(t, hub, { groups: ['room'] });
  const s = service(hub);
  const refused = (call, message) => assert.rejects(call, (e) => {
    assert.equal(e.statusCode, 400);
    assert.equal(e.code, 'Error.BadRequest');
    assert.match(e.message, message);
    return true;
  });
  await refused(s.sendToAll('x', { ...asText, messageTtlSeconds: 301 }), /300/);
  await refused(s.sendToAll('x', { ...asText, filter: 'ab eq 1' }), /Token 'ab' is not supported\./);
  await refused(s.group('room').sendToAll('x'.repeat(1024 * 1024 + 1), asText), /./);
  await refused(s.group(' ').sendToAll('x', asText), /./);
  await refused(service('1hub').sendToAll('x', asText), /./);
  await only(hub, { ann: [ann, []] });
});

test('hubs keep apart, and their names have no case', async (t) => {
  const chat = await client(t, 'Apart1');
  const news = await client(t, 'apart2');
  await service('APART1').sendToAll('chat', asText);
  await service('Apart2').sendToAll('news', asText);
  await only('apart1', { chat: [chat, [text('chat')]] });
  await only('apart2', { news: [news, [text('news')]] });
});
