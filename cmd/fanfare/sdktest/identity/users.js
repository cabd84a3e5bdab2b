'use strict';
// Users of the node that go test started, and what they may do with their tokens.

const { once } = require('node:events');
const { CommunicationIdentityClient } = require('@azure/communication-identity');
const { AzureKeyCredential } = require('@azure/core-auth');
const WebSocket = require('ws');
const { endpoint, key, options } = require('../javascript/fanfare');

const identity = new CommunicationIdentityClient(process.env.IDENTITY_ENDPOINT, new AzureKeyCredential(key), options);

// newUser makes a user with a token of the scopes.
async function newUser(...scopes) {
  const { user, token } = await identity.createUserAndToken(scopes);
  return { user, id: user.communicationUserId, token };
}

const door = endpoint.replace('http', 'ws');
const clientURL = (hub, token) => `${door}/client/hubs/${hub}?access_token=${token}`;
const mqttURL = (hub, token) => `${door}/clients/mqtt/hubs/${hub}?access_token=${token}`;

// refusal is how a handshake is refused: the status, and the rule behind the words.
async function refusal(url, protocols = []) {
  const ws = new WebSocket(url, protocols);
  ws.on('error', () => {}); // follows terminate
  const [, response] = await Promise.race([
    once(ws, 'unexpected-response'),
    once(ws, 'open').then(() => Promise.reject(new Error('the upgrade was accepted'))),
  ]);
  const text = (await response.toArray()).join('');
  ws.terminate();
  return [response.statusCode, /\[(.*)\]$/.exec(text.trim())?.[1]];
}

module.exports = { clientURL, identity, mqttURL, newUser, refusal };
