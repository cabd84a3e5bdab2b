'use strict';
// Pages of other origins than the node's: what they may call, and what they can read.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { open } = require('./browser');
const { client, service, text } = require('../fanfare');

const { FANFARE_ENDPOINT: endpoint, FANFARE_PAGE: allowed } = process.env;
const other = allowed.replace('127.0.0.1', 'localhost');

// call fetches in a page, and resolves to what the page can read, or to an error.
const call = (page, path, options) =>
  page.evaluate(async ([url, options]) => {
    try {
      const reply = await fetch(url, options);
      return { status: reply.status, body: await reply.text(), code: reply.headers.get('x-ms-error-code'), versions: reply.headers.get('api-supported-versions') };
    } catch (e) {
      return { error: e.name };
    }
  }, [endpoint + path, options]);

test('pages of an allowed origin call REST and the identity API, those of others read public keys alone', async (t) => {
  const hub = 'pages';
  const sdk = await client(t, hub, { userId: 'sdk' });
  const browser = await open(t);
  const [mine, foreign] = [await browser.newPage(), await browser.newPage()];
  await mine.goto(allowed);
  await foreign.goto(other);

  // A token for one request, as the SDK signs it.
  let authorization;
  const s = service(hub);
  s.client.pipeline.addPolicy({
    name: 'note',
    sendRequest: (request, next) => {
      authorization = request.headers.get('authorization');
      return next(request);
    },
  }, { afterPhase: 'Sign' });
  await s.sendToAll('from REST', { contentType: 'text/plain' });
  const send = `/api/hubs/${hub}/:send?api-version=2024-12-01`;
  const saying = (body) => ({ method: 'POST', body, headers: { Authorization: authorization, 'Content-Type': 'text/plain', 'x-ms-client-request-id': '1' } });
  assert.equal((await call(mine, send, saying('from a page'))).status, 202);
  assert.deepEqual(await call(foreign, send, saying('from another')), { error: 'TypeError' });
  assert.deepEqual(await sdk.inbox.take(2), [text('from REST'), text('from a page')]);

  // A refusal can be read, too.
  const refused = await call(mine, send, { ...saying('x'), headers: { ...saying().headers, Authorization: 'Bearer x.y.z' } });
  assert.equal(refused.status, 401);
  assert.match(refused.body, /token\.malformed/);
  assert.match(refused.versions, /2024-12-01/);

  // What InteractiveBrowserCredential's token is exchanged by.
  for (const path of ['/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30', '/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview']) {
    const exchange = { method: 'POST', body: '{}', headers: { Authorization: 'Bearer x.y.z', 'Content-Type': 'application/json', Accept: 'application/json' } };
    const reply = await call(mine, path, exchange);
    assert.equal(reply.status, 501); // this node knows no tenant
    assert.match(reply.body, /rest\.entraUsers/);
    assert.deepEqual(await call(foreign, path, exchange), { error: 'TypeError' });
  }

  for (const page of [mine, foreign]) {
    const keys = await call(page, '/identities/.well-known/jwks.json', { headers: { 'x-trace': '1' } });
    assert.equal(keys.status, 200);
    assert.ok(JSON.parse(keys.body).keys.length > 0);
  }
});
