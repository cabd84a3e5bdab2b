'use strict';
// Invocations: events whose answer comes back to the one who asked.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { bytes, client, only, plain, reliable, seen } = require('./fanfare');

const hub = 'events'; // the hub whose events go to handler.js

const asBytes = (data) => (data instanceof ArrayBuffer ? [...new Uint8Array(data)] : data);

// failed checks the error of an invocation that the node answered with a failure.
const failed = (e) => {
  assert.equal(e.name, 'InvocationError');
  assert.equal(e.errorDetail?.name, 'InternalServerError');
  return true;
};

// cancelled checks the error of an invocation that its caller gave up.
const cancelled = (e) => {
  assert.equal(e.name, 'InvocationError');
  assert.equal(e.errorDetail, undefined, 'the node has not answered');
  return true;
};

for (const protocol of [plain, reliable]) {
  test(`answers of text, JSON, binary and nothing, over ${protocol.name}`, async (t) => {
    const ann = await client(t, hub, {}, '', { protocol });
    const answered = async (event, data, type) => {
      const { dataType, data: answer } = await ann.invokeEvent(event, data, type);
      return [dataType, asBytes(answer)];
    };
    assert.deepEqual(await answered('echo', 'hi 👋', 'text'), ['text', 'hi 👋']);
    assert.deepEqual(await answered('echo', { a: [1, null] }, 'json'), ['json', { a: [1, null] }]);
    assert.deepEqual(await answered('echo', bytes(0, 1, 255), 'binary'), ['binary', [0, 1, 255]]);
    assert.equal((await answered('quiet', 'x', 'text'))[1] ?? '', '', 'what comes of an empty answer');
    await only(hub, { ann: [ann, []] }); // an answer is no message besides
  });

  test(`each of many invocations gets its own answer, over ${protocol.name}`, async (t) => {
    const ann = await client(t, hub, {}, '', { protocol });
    const asked = Array.from({ length: 20 }, (_, n) => ({ n }));
    const answers = await Promise.all(asked.map((data) => ann.invokeEvent('echo', data, 'json')));
    assert.deepEqual(answers.map((a) => a.data), asked);
    const named = await ann.invokeEvent('echo', 'x', 'text', { invocationId: 'mine' });
    assert.deepEqual(named, { invocationId: 'mine', dataType: 'text', data: 'x' });
  });

  test(`a handler that refuses, and none at all, over ${protocol.name}`, async (t) => {
    const ann = await client(t, hub, {}, '', { protocol });
    const bo = await client(t, 'nohandler', {}, '', { protocol });
    await assert.rejects(ann.invokeEvent('refuse', 'x', 'text'), failed);
    await assert.rejects(bo.invokeEvent('echo', 'x', 'text'), failed);
    assert.equal((await ann.invokeEvent('echo', 'still here', 'text')).data, 'still here');
  });

  test(`an invocation that is given up ends the handler’s call, over ${protocol.name}`, async (t) => {
    const ann = await client(t, hub, {}, '', { protocol });
    const hanging = new AbortController();
    const hung = ann.invokeEvent('hang', 'x', 'text', { abortSignal: hanging.signal });
    await seen(ann.connectionId, 1, ['user']);
    // Waits its turn behind the one that hangs, and is never asked.
    const waiting = new AbortController();
    const waited = ann.invokeEvent('echo', 'too late', 'text', { abortSignal: waiting.signal });
    await ann.sendEvent('note', 'behind it', 'text', { fireAndForget: true }); // both have been sent
    waiting.abort();
    await assert.rejects(waited, cancelled);
    hanging.abort();
    await assert.rejects(hung, cancelled);
    assert.equal((await seen(ann.connectionId, 1, ['cancelled']))[0].name, 'hang');
    assert.equal((await ann.invokeEvent('echo', 'next', 'text')).data, 'next');
    const events = await seen(ann.connectionId, 3, ['user']);
    assert.deepEqual(events.map((e) => [e.context.eventName, e.data]), [['hang', 'x'], ['note', 'behind it'], ['echo', 'next']]);
  });
}

test('a handler that breaks is tried again, four times in 9 s, and then the invocation has failed', async (t) => {
  const ann = await client(t, hub);
  await assert.rejects(ann.invokeEvent('crash', 'x', 'text'), failed);
  assert.equal((await seen(ann.connectionId, 4, ['user'])).length, 4, 'tries');
});
