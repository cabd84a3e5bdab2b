'use strict';
// Who is in which group, and what exists.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { asText, client, only, service, text } = require('./fanfare');

// members sends to a group and tells who of the clients received it.
async function members(hub, group, clients) {
  await service(hub).group(group).sendToAll('who is here?', asText);
  const here = [];
  for (const [name, c] of Object.entries(clients)) {
    await service(hub).sendToConnection(c.connectionId, 'END', asText);
    let m;
    while ((m = await c.inbox.next(`the end of what ${name} receives`))[2] !== 'END') {
      assert.deepEqual(m, text('who is here?', `group ${group}`));
      here.push(name);
    }
  }
  return here;
}

test('connections join and leave, repeatedly', async (t) => {
  const hub = 'byconnection';
  const c = { ann: await client(t, hub), bo: await client(t, hub) };
  const room = service(hub).group('room');
  await room.addConnection(c.ann.connectionId);
  await room.addConnection(c.ann.connectionId);
  await room.addConnection(c.bo.connectionId);
  assert.deepEqual(await members(hub, 'room', c), ['ann', 'bo']);
  await room.removeConnection(c.ann.connectionId);
  await room.removeConnection(c.ann.connectionId);
  assert.deepEqual(await members(hub, 'room', c), ['bo']);
  assert.deepEqual(await members(hub, 'Room', c), [], 'group names have case');
});

test('a connection that does not exist cannot join, and may leave', async () => {
  const room = service('nosuch').group('room');
  await assert.rejects(room.addConnection('ghost'), (e) => {
    assert.equal(e.statusCode, 404);
    assert.equal(e.code, 'Error.Connection.NotExisted');
    assert.match(e.message, /ghost/);
    return true;
  });
  await room.removeConnection('ghost');
});

test('users join and leave with all their connections', async (t) => {
  const hub = 'byuser';
  const c = {
    phone: await client(t, hub, { userId: 'ann' }),
    desk: await client(t, hub, { userId: 'ann' }),
    bo: await client(t, hub, { userId: 'bo' }),
  };
  const room = service(hub).group('room');
  await room.addUser('ann');
  await room.addUser('bo');
  assert.deepEqual(await members(hub, 'room', c), ['phone', 'desk', 'bo']);
  await room.removeUser('ann');
  assert.deepEqual(await members(hub, 'room', c), ['bo']);
  await assert.rejects(room.addUser('ghost'), { statusCode: 404 });
  await room.removeUser('ghost');
});

test('leaving all groups, by connection and by user', async (t) => {
  const hub = 'leaveall';
  const c = {
    phone: await client(t, hub, { userId: 'ann', groups: ['a', 'b'] }),
    desk: await client(t, hub, { userId: 'ann', groups: ['a', 'b'] }),
    bo: await client(t, hub, { userId: 'bo', groups: ['a', 'b'] }),
  };
  const s = service(hub);
  assert.deepEqual(await members(hub, 'a', c), ['phone', 'desk', 'bo']);
  await s.removeConnectionFromAllGroups(c.phone.connectionId);
  assert.deepEqual(await members(hub, 'a', c), ['desk', 'bo']);
  await s.removeUserFromAllGroups('ann');
  assert.deepEqual(await members(hub, 'a', c), ['bo']);
  assert.deepEqual(await members(hub, 'b', c), ['bo']);
  await s.removeUserFromAllGroups('ghost');
  await s.removeConnectionFromAllGroups('ghost');
});

test('a filter puts connections into groups and takes them out', async (t) => {
  const hub = 'byfilter';
  const c = {
    ann: await client(t, hub, { userId: 'ann', groups: ['staff'] }),
    bo: await client(t, hub, { userId: 'bo' }),
    cy: await client(t, hub, { userId: 'cy' }),
  };
  const s = service(hub);
  await s.addConnectionsToGroups(['a', 'b'], "userId in ('ann','bo')");
  assert.deepEqual(await members(hub, 'a', c), ['ann', 'bo']);
  assert.deepEqual(await members(hub, 'b', c), ['ann', 'bo']);
  await s.removeConnectionsFromGroups(['a'], "'staff' in groups");
  assert.deepEqual(await members(hub, 'a', c), ['bo']);
  await s.addConnectionsToGroups(['a'], "userId eq 'nobody'");
  assert.deepEqual(await members(hub, 'a', c), ['bo']);
  await assert.rejects(s.addConnectionsToGroups(['a'], 'userId lt 1'), (e) => {
    assert.equal(e.statusCode, 400);
    assert.match(e.message, /Type 'string', expect 'int'\./);
    return true;
  });
  await assert.rejects(s.addConnectionsToGroups([], "userId eq 'ann'"), { statusCode: 400 });
});

test('exists: connections, groups, users', async (t) => {
  const hub = 'exists';
  const s = service(hub);
  const ann = await client(t, hub, { userId: 'a/n n', groups: ['room'] });
  assert.equal(await s.connectionExists(ann.connectionId), true);
  assert.equal(await s.connectionExists('ghost'), false);
  assert.equal(await s.groupExists('room'), true);
  assert.equal(await s.groupExists('ghost'), false);
  assert.equal(await s.userExists('ghost'), false);
  const bo = await client(t, hub, { userId: 'bo b' });
  assert.equal(await s.userExists('bo b'), true);
  await s.closeConnection(bo.connectionId);
  await bo.ended.next("bo's end");
  assert.equal(await s.userExists('bo b'), false, 'a user is gone with the last connection');
  await s.group('room').removeConnection(ann.connectionId);
  assert.equal(await s.groupExists('room'), false, 'a group is gone with the last member');
});

test('a group is listed page by page', async (t) => {
  const hub = 'listing';
  const g = service(hub).group('crowd here'); // pages must escape the name as well
  const want = [];
  for (let i = 0; i < 7; i++) {
    const c = await client(t, hub, i < 5 ? { userId: `user ${i}` } : {});
    await g.addConnection(c.connectionId);
    want.push({ connectionId: c.connectionId, userId: i < 5 ? `user ${i}` : null });
  }
  want.sort((a, b) => (a.connectionId < b.connectionId ? -1 : 1));
  const known = (m) => ({ connectionId: m.connectionId, userId: m.userId ?? null });
  const list = async (options) => {
    const pages = [];
    for await (const page of (await g.listConnections(options)).byPage()) pages.push(page.map(known));
    return pages;
  };

  assert.deepEqual(await list({}), [want]);
  assert.deepEqual(await list({ maxPageSize: 3 }), [want.slice(0, 3), want.slice(3, 6), want.slice(6)]);
  assert.deepEqual(await list({ maxPageSize: 2, top: 5 }), [want.slice(0, 2), want.slice(2, 4), want.slice(4, 5)]);
  const one = [];
  for await (const m of await g.listConnections({ maxPageSize: 4 })) one.push(known(m));
  assert.deepEqual(one, want);
  const empty = [];
  for await (const m of await service(hub).group('empty').listConnections()) empty.push(m);
  assert.deepEqual(empty, []);
  await assert.rejects(list({ maxPageSize: 201 }), { statusCode: 400 });
});

test('groups from the token are joined on connect', async (t) => {
  const hub = 'initialgroups';
  const ann = await client(t, hub, { groups: ['a', 'b c'] });
  await service(hub).group('b c').sendToAll('hi', asText);
  await only(hub, { ann: [ann, [text('hi', 'group b c')]] });
});
