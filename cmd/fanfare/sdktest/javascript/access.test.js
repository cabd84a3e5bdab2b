'use strict';
// Tokens, roles, permissions, and what is refused.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { AzureKeyCredential, WebPubSubServiceClient } = require('@azure/web-pubsub');
const { asText, client, endpoint, key, only, opened, options, refused, secondaryKey, service, text } = require('./fanfare');

const forbidden = (e) => {
  assert.equal(e.errorDetail?.name, 'Forbidden', `the ack's error is ${JSON.stringify(e.errorDetail)}`);
  return true;
};

test('roles decide what a client may do', async (t) => {
  const hub = 'roles';
  const nobody = await client(t, hub);
  await assert.rejects(nobody.joinGroup('room'), forbidden);
  await assert.rejects(nobody.leaveGroup('room'), forbidden);
  await assert.rejects(nobody.sendToGroup('room', 'hi', 'text'), forbidden);

  const member = await client(t, hub, { roles: ['webpubsub.joinLeaveGroup.room', 'webpubsub.sendToGroup.room'] });
  await member.joinGroup('room');
  await member.sendToGroup('room', 'hi', 'text');
  await assert.rejects(member.joinGroup('other'), forbidden);
  await assert.rejects(member.sendToGroup('other', 'hi', 'text'), forbidden);

  const pattern = await client(t, hub, { roles: ['webpubsub.joinLeaveGroups.a.*', 'webpubsub.sendToGroups.b.**'] });
  await pattern.joinGroup('a.x');
  await assert.rejects(pattern.joinGroup('a.x.y'), forbidden);
  await pattern.sendToGroup('b.x.y', 'hi', 'text');
  await assert.rejects(pattern.sendToGroup('a.x', 'hi', 'text'), forbidden);

  const all = await client(t, hub, { roles: ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'] });
  await all.joinGroup('any');
  await all.sendToGroup('any', 'hi', 'text');
  await only(hub, { nobody: [nobody, []], member: [member, [text('hi', 'group room')]], all: [all, [text('hi', 'group any')]] });
});

test('permissions are granted, checked and revoked while a client is connected', async (t) => {
  const hub = 'permissions';
  const s = service(hub);
  const ann = await client(t, hub);
  for (const [permission, use] of [
    ['joinLeaveGroup', () => ann.joinGroup('a room')],
    ['sendToGroup', () => ann.sendToGroup('a room', 'hi', 'text')],
  ]) {
    const target = { targetName: 'a room' };
    assert.equal(await s.hasPermission(ann.connectionId, permission, target), false, `${permission} before`);
    await assert.rejects(use(), forbidden);
    await s.grantPermission(ann.connectionId, permission, target);
    assert.equal(await s.hasPermission(ann.connectionId, permission, target), true, `${permission} granted`);
    assert.equal(await s.hasPermission(ann.connectionId, permission, { targetName: 'other' }), false);
    await use();
    await s.revokePermission(ann.connectionId, permission, target);
    assert.equal(await s.hasPermission(ann.connectionId, permission, target), false, `${permission} revoked`);
    await assert.rejects(use(), forbidden);
  }
});

test('a revoked permission beats the role, and the membership stays', async (t) => {
  const hub = 'revoked';
  const s = service(hub);
  const ann = await client(t, hub, { roles: ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'] });
  await ann.joinGroup('room');
  assert.equal(await s.hasPermission(ann.connectionId, 'sendToGroup', { targetName: 'room' }), true);
  await s.revokePermission(ann.connectionId, 'sendToGroup', { targetName: 'room' });
  assert.equal(await s.hasPermission(ann.connectionId, 'sendToGroup', { targetName: 'room' }), false);
  await assert.rejects(ann.sendToGroup('room', 'hi', 'text'), forbidden);
  await s.group('room').sendToAll('still here', asText);
  await only(hub, { ann: [ann, [text('still here', 'group room')]] });
});

test('a permission is for a group that is named', async (t) => {
  const ann = await client(t, 'permissions');
  for (const call of ['grantPermission', 'revokePermission', 'hasPermission']) {
    await assert.rejects(service('permissions')[call](ann.connectionId, 'sendToGroup'), { statusCode: 400 }, call);
  }
});

test('permissions of a connection that does not exist', async () => {
  const s = service('permissions');
  const target = { targetName: 'room' };
  await assert.rejects(s.grantPermission('ghost', 'sendToGroup', target), (e) => {
    assert.equal(e.statusCode, 404);
    assert.equal(e.code, 'Info.Connection.NotExisted');
    return true;
  });
  assert.equal(await s.hasPermission('ghost', 'sendToGroup', target), false);
  await s.revokePermission('ghost', 'sendToGroup', target);
});

test('client tokens: the user, no user, and times', async (t) => {
  const hub = 'tokens';
  const ann = await client(t, hub, { userId: 'ann@example.com', expirationTimeInMinutes: 1 });
  assert.equal(ann.userId, 'ann@example.com');
  const nobody = await client(t, hub, {});
  assert.ok(!nobody.userId, `a client without a user is ${JSON.stringify(nobody.userId)}`);
  const odd = await client(t, 'a[1].b', { userId: 'ü' }); // a hub name that escaping changes
  assert.equal(odd.userId, 'ü');
  await service('a[1].b').sendToUser('ü', 'hi', asText);
  await only('a[1].b', { odd: [odd, [text('hi')]] });
});

test('a service client made from endpoint and key, the primary or the secondary', async (t) => {
  const hub = 'bykey';
  const ann = await client(t, hub, { userId: 'ann' });
  for (const k of [key, secondaryKey]) {
    const s = new WebPubSubServiceClient(endpoint, new AzureKeyCredential(k), hub, options);
    await s.sendToUser('ann', 'hi', asText);
    const { url } = await s.getClientAccessToken({ userId: 'bo' });
    await opened(t, url);
  }
  await only(hub, { ann: [ann, [text('hi'), text('hi')]] });
});

test('a wrong key is refused with 401 by both doors, and nothing happens', async (t) => {
  const hub = 'wrongkey';
  const ann = await client(t, hub, { userId: 'ann', groups: ['room'] });
  const wrong = new WebPubSubServiceClient(endpoint, new AzureKeyCredential('not-the-key-not-the-key-not-the-key'), hub, options);
  await assert.rejects(wrong.sendToAll('no', asText), { statusCode: 401 });
  await assert.rejects(wrong.closeConnection(ann.connectionId), { statusCode: 401 });
  await assert.rejects(wrong.group('room').removeConnection(ann.connectionId), { statusCode: 401 });
  const { url } = await wrong.getClientAccessToken({ userId: 'eve' });
  assert.equal(await refused(url), 401);
  await service(hub).group('room').sendToAll('still here', asText);
  await only(hub, { ann: [ann, [text('still here', 'group room')]] });
});

test('no token, another hub’s token and a token that was changed are refused with 401', async () => {
  const { token, baseUrl } = await service('tokens').getClientAccessToken({ userId: 'ann' });
  assert.equal(await refused(baseUrl), 401);
  assert.equal(await refused(`${baseUrl}x?access_token=${token}`), 401);
  assert.equal(await refused(`${baseUrl}?access_token=${token}x`), 401);
});
