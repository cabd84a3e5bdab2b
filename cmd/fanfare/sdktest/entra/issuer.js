'use strict';
// A public emulator of an OpenID provider, oauth2-mock-server, dressed up as one
// tenant of Entra ID: its paths, and the claims of its tokens. It prints its
// authority once it listens. POST /rotate replaces its signing key.

const { readFileSync } = require('node:fs');
const https = require('node:https');
const { OAuth2Issuer, OAuth2Service } = require('oauth2-mock-server');

const { ENTRA_TENANT: tenant, ENTRA_CERT_FILE: cert, ENTRA_KEY_FILE: key } = process.env;
const base = `/${tenant}/v2.0`;
const token = `/${tenant}/oauth2/v2.0/token`; // where Microsoft's libraries look that trust no document

async function main() {
  let service;
  const renew = async () => {
    const issuer = new OAuth2Issuer();
    issuer.url = authority && authority + base;
    await issuer.keys.generate('RS256');
    service = new OAuth2Service(issuer);
    service.on('beforeTokenSigning', ({ payload }, { body }) => {
      Object.assign(payload, {
        // The resource whose /.default was asked for; one that ends in a slash keeps it.
        aud: body.scope.split(' ').find((s) => s.startsWith('https:')).replace(/\/\.default$/, ''),
        azp: body.client_id, oid: body.client_id, sub: body.client_id, tid: tenant, idtyp: 'app', ver: '2.0',
      });
    });
  };
  let authority;
  const server = https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, async (request, response) => {
    if (request.url === '/rotate') {
      await renew();
      response.end();
    } else if (request.url.startsWith(base) || request.url === token) {
      request.url = request.url === token ? '/token' : request.url.slice(base.length);
      service.requestHandler(request, response);
    } else {
      response.writeHead(404).end();
    }
  });
  server.listen(0, '127.0.0.1', async () => {
    authority = `https://127.0.0.1:${server.address().port}`;
    await renew();
    console.log(`listening on ${authority}`);
  });
}

main();
