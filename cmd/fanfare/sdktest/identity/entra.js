'use strict';
// Tokens of the authority that go test started, as a service and as a user get them.

const assert = require('node:assert/strict');

const { ENTRA_AUTHORITY: authority, ENTRA_TENANT: tenant } = process.env;

async function granted(form) {
  const reply = await fetch(`${authority}/${tenant}/v2.0/token`, { method: 'POST', body: new URLSearchParams(form) });
  assert.equal(reply.status, 200, 'the issuer gives tokens');
  return reply.json();
}

// entra is the credential of an application. Its asked are the scopes that it was asked for.
function entra(clientId) {
  const asked = [];
  const getToken = async (scopes) => {
    asked.push(...[scopes].flat());
    const { access_token: token, expires_in: seconds } = await granted({
      grant_type: 'client_credentials', client_id: clientId, scope: [scopes].flat().join(' '),
    });
    return { token, expiresOnTimestamp: Date.now() + seconds * 1000 };
  };
  return { asked, getToken };
}

// userToken is a token that an application got for a user who signed in.
async function userToken(user, clientId, scope = 'https://auth.msft.communication.azure.com/Teams.ManageCalls') {
  return (await granted({ grant_type: 'password', username: user, client_id: clientId, scope })).access_token;
}

module.exports = { entra, userToken };
