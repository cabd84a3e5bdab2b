'use strict';
// Streams: one publisher's messages to a group that belong together, in order, to
// an end.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Inbox, bytes, client, lossy, plain, reliable, service } = require('./fanfare');

const anything = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];
const talker = { userId: 'ann', roles: anything };

const part = (dataType, data) => [dataType, data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data];

// streamsTo returns an inbox with each stream that has ended at a client: its id,
// its parts and its error. each, if given, is called with the number of every part.
function streamsTo(c, each = () => {}) {
  const ended = new Inbox();
  c.onGroupStream(async (stream) => {
    const { groupName: group, streamId: id } = stream;
    const parts = [];
    let error;
    try {
      for await (const m of stream) {
        parts.push(part(m.dataType, m.data));
        assert.equal(m.stream.streamSequenceId, parts.length, `the number of a part of ${id}`);
        assert.equal(m.fromUserId, 'ann');
        each(parts.length);
      }
    } catch (e) {
      error = e;
    }
    ended.push({ group, id, parts, error });
  });
  return ended;
}

// sent waits until the end of a stream has been sent. The SDK calls the stream
// completed instead, an error, where the node's answer is noticed first.
const sent = (end) => end.catch((e) => assert.match(e.message, /is completed/));

for (const protocol of [plain, reliable]) {
  const over = { protocol };

  test(`all parts in order, and the end, over ${protocol.name}`, async (t) => {
    const hub = 'streams';
    const ann = await client(t, hub, talker, '', over);
    const bo = await client(t, hub, { groups: ['room'] }, '', over);
    const streams = streamsTo(bo);
    const out = await ann.openGroupStream('room', { streamId: 's1' });
    const parts = [['text', 'hi 👋'], ['json', { n: [1] }], ['binary', bytes(0, 255)], ['json', 'quoted']];
    for (let n = parts.length; n < 200; n++) parts.push(['text', `part ${n}`]);
    for (const [type, data] of parts) await out.write(data, type);
    await sent(out.end());
    assert.deepEqual(await streams.next(), { group: 'room', id: 's1', parts: parts.map(([type, data]) => part(type, data)), error: undefined });

    // What is answered later says that the end was, too: the id is free again.
    await ann.joinGroup('elsewhere');
    const again = await ann.openGroupStream('room', { streamId: 's1' });
    await again.write('once more', 'text');
    await sent(again.end());
    assert.deepEqual((await streams.next()).parts, [['text', 'once more']]);
  });

  test(`two streams at once, one of them not to oneself, over ${protocol.name}`, async (t) => {
    const hub = 'twostreams';
    const ann = await client(t, hub, { ...talker, groups: ['room'] }, '', over);
    const bo = await client(t, hub, { groups: ['room'] }, '', over);
    const [own, others] = [streamsTo(ann), streamsTo(bo)];
    const loud = await ann.openGroupStream('room', { streamId: 'loud' });
    const quiet = await ann.openGroupStream('room', { streamId: 'quiet', noEcho: true });
    for (let n = 1; n <= 20; n++) {
      await quiet.write(n, 'json');
      await loud.write(-n, 'json');
    }
    await sent(quiet.end());
    await sent(loud.end());
    const numbers = (sign) => Array.from({ length: 20 }, (_, n) => ['json', sign * (n + 1)]);
    const want = { group: 'room', id: 'loud', parts: numbers(-1), error: undefined };
    assert.deepEqual(await others.take(2), [{ group: 'room', id: 'quiet', parts: numbers(1), error: undefined }, want]);
    assert.deepEqual(await own.next(), want);
  });

  test(`a stream that ends with an error, over ${protocol.name}`, async (t) => {
    const ann = await client(t, 'brokenstreams', talker, '', over);
    const bo = await client(t, 'brokenstreams', { groups: ['room'] }, '', over);
    const streams = streamsTo(bo);
    const out = await ann.openGroupStream('room', { streamId: 's1' });
    await out.write('a', 'text');
    await sent(out.abort({ message: 'gave up', userErrorCode: 'E42' }));
    const { parts, error } = await streams.next();
    assert.deepEqual(parts, [['text', 'a']]);
    assert.deepEqual(error, { name: 'UserError', message: 'gave up', userErrorCode: 'E42' });
    await assert.rejects(out.write('b', 'text'), /completed/);
  });

  test(`a stream whose publisher falls silent, and one whose publisher is closed, over ${protocol.name}`, async (t) => {
    const hub = 'lonelystreams';
    const ann = await client(t, hub, talker, '', over);
    const bo = await client(t, hub, { groups: ['room'] }, '', over);
    const streams = streamsTo(bo);
    const silent = await ann.openGroupStream('room', { streamId: 'silent', idleTimeoutInMs: 2000 });
    const told = new Inbox();
    silent.onError((e) => told.push(e));
    await silent.write('a', 'text');
    assert.equal((await told.next('what the publisher is told')).name, 'IdleTimeout');
    const first = await streams.next();
    assert.deepEqual([first.id, first.parts, first.error?.name], ['silent', [['text', 'a']], 'IdleTimeout']);

    const left = await ann.openGroupStream('room', { streamId: 'left' });
    await left.write('a', 'text');
    await ann.joinGroup('elsewhere'); // once this is answered, the part was taken
    await service(hub).closeConnection(ann.connectionId);
    const second = await streams.next();
    assert.deepEqual([second.id, second.parts, second.error?.name], ['left', [['text', 'a']], 'Cancelled']);
  });

  test(`a stream without the right to send, over ${protocol.name}`, async (t) => {
    const eve = await client(t, 'streams', { roles: ['webpubsub.sendToGroup.other'] }, '', over);
    await assert.rejects(eve.openGroupStream('room'), (e) => e.name === 'Forbidden');
    const out = await eve.openGroupStream('other');
    await sent(out.end());
  });
}

test('a stream goes on when its publisher or its subscriber loses the connection', async (t) => {
  const hub = 'lossystreams';
  const [annsWay, bosWay] = [await lossy(t), await lossy(t)];
  const ann = await client(t, hub, talker, '', { protocol: reliable, through: annsWay.connectionString });
  const bo = await client(t, hub, { groups: ['room'] }, '', { protocol: reliable, through: bosWay.connectionString });
  const ended = [];
  for (const c of [ann, bo]) c.on('disconnected', () => ended.push(c.connectionId));
  const cuts = new Map([[50, bosWay], [100, annsWay], [150, bosWay], [151, annsWay]]);
  const streams = streamsTo(bo, (n) => cuts.get(n)?.cut());
  const out = await ann.openGroupStream('room', { streamId: 'long' });
  const told = [];
  out.onError((e) => told.push(e));
  const parts = Array.from({ length: 300 }, (_, n) => ['json', n]);
  // Half of what is written before the second cut is not sent by then.
  await Promise.all(parts.slice(0, 200).map(([type, data]) => out.write(data, type)));
  for (const [type, data] of parts.slice(200)) await out.write(data, type);
  await sent(out.end());
  assert.deepEqual(await streams.next('the end of the stream'), { group: 'room', id: 'long', parts, error: undefined });
  assert.deepEqual(told, [], 'what the publisher was told');
  assert.deepEqual(ended, [], 'who lost the logical connection');
});
