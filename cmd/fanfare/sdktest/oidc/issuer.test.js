'use strict';
// A node that issues its service tokens itself, and event handlers that check them
// as they would check anybody's: one with Express middleware, one with jose. All
// that they are told is the issuer's URL.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const express = require('express');
const { auth } = require('express-oauth2-jwt-bearer');
const { calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } = require('jose');

const audience = 'api://my-handler';
const key = Buffer.alloc(32, 7).toString('base64');
const binary = process.env.FANFARE_BINARY;
const seen = []; // claims of those events whose tokens held
let handlers, node, issuer, dir;

// said collects what a process prints, and waits for what it is to say.
function said(child) {
  let text = '';
  const waiting = new Set();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      text += chunk;
      for (const check of waiting) check();
    });
  }
  return (pattern) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${pattern} did not come:\n${text}`)), 60_000);
      const check = () => {
        const found = pattern.exec(text);
        if (!found) return;
        clearTimeout(timer);
        waiting.delete(check);
        resolve(found);
      };
      waiting.add(check);
      check();
    });
}

before(async () => {
  const app = express();
  app.options('/{*path}', (req, res) => res.set('WebHook-Allowed-Origin', '*').end());
  let middleware;
  app.post('/express', (req, res, next) => {
    middleware ??= auth({ issuerBaseURL: issuer, audience });
    middleware(req, res, next);
  }, (req, res) => {
    seen.push(req.auth.payload);
    res.status(204).end();
  });
  app.post('/jose', async (req, res) => {
    try {
      const found = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
      const keys = createRemoteJWKSet(new URL(found.jwks_uri));
      const token = req.get('Authorization').replace(/^Bearer /, '');
      const { payload } = await jwtVerify(token, keys, {
        issuer: found.issuer, audience, algorithms: found.id_token_signing_alg_values_supported, typ: 'JWT', maxTokenAge: '1h',
        requiredClaims: ['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'azp'],
      });
      seen.push(payload);
      res.status(204).end();
    } catch (e) {
      res.status(401).end();
    }
  });
  app.use((err, req, res, next) => res.status(err.status ?? 500).end()); // what the middleware throws
  handlers = app.listen(0, '127.0.0.1');
  await once(handlers, 'listening');
  const at = `http://127.0.0.1:${handlers.address().port}`;

  const hub = (urlPath, resource) => ({
    eventHandlers: [{ urlTemplate: at + urlPath, systemEvents: ['connect'], auth: { type: 'ManagedIdentity', managedIdentity: { resource } } }],
  });
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'fanfare-oidc-'));
  const file = path.join(dir, 'fanfare.yaml');
  fs.writeFileSync(file, JSON.stringify({
    listen: '127.0.0.1:0',
    accessKeys: { primary: key },
    identity: { type: 'Local' },
    hubs: {
      express: hub('/express', audience), jose: hub('/jose', audience),
      express_other: hub('/express', 'api://another'), jose_other: hub('/jose', 'api://another'),
    },
  }));
  node = spawn(binary, ['--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  [, issuer] = await said(node)(/Token issuer +(\S+)/);
});

after(async () => {
  if (node) {
    node.kill('SIGTERM');
    const [code] = await once(node, 'exit');
    assert.equal(code, 0, 'the node ends in order');
  }
  handlers?.closeAllConnections();
  handlers?.close();
  if (dir) fs.rmSync(dir, { recursive: true });
});

// knock lets a client in, or not, and returns what its program says.
async function knock(hub, pattern) {
  const env = { ...process.env, FANFARE_CONNECTION_STRING: `Endpoint=${issuer};AccessKey=${key};Version=1.0;` };
  const client = spawn(binary, ['sub', '--hub', hub], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  try {
    await said(client)(pattern);
  } finally {
    client.kill('SIGKILL');
    await once(client, 'close');
  }
}

for (const kind of ['express', 'jose']) {
  test(`${kind} accepts a token for itself`, async () => {
    seen.length = 0;
    await knock(kind, new RegExp(`connected to hub ${kind}`));
    assert.equal(seen.length, 1);
    const [claims] = seen;
    assert.equal(claims.iss, issuer);
    assert.equal(claims.aud, audience);
    assert.equal(claims.sub, 'fanfare');
    assert.equal(claims.idtyp, 'app');
  });

  test(`${kind} refuses a token for another`, async () => {
    seen.length = 0;
    await knock(`${kind}_other`, /401/);
    assert.equal(seen.length, 0);
  });
}

test('key ids are thumbprints', async () => {
  const { keys } = await (await fetch(`${issuer}/.well-known/jwks.json`)).json();
  assert.equal(keys.length, 1);
  for (const k of keys) assert.equal(k.kid, await calculateJwkThumbprint(k));
});
