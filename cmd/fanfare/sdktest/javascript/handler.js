'use strict';
// The event handler of the suites: the official express middleware, which does
// what the connect URL's "case", an MQTT client's user name or the event's name
// says, and keeps what it saw.
// GET /seen?connectionId=C&count=N waits for N events of a connection and
// returns all so far.

const express = require('express');
const { WebPubSubEventHandler } = require('@azure/web-pubsub-express');

const seen = new Map(); // connection id -> events
const waiting = new Set(); // functions that look again

function saw(context, what) {
  const list = seen.get(context.connectionId) ?? [];
  seen.set(context.connectionId, list);
  list.push(structuredClone(what)); // as it is now: the middleware changes its states in place
  for (const look of waiting) look();
}

const plain = (data) => (Buffer.isBuffer(data) ? [...data] : data);

const connectCases = {
  deny: (_, res) => res.fail(401, 'not today'),
  forbid: (_, res) => res.failWith({ code: 400, detail: 'not like this' }),
  change: (_, res) => res.success({ userId: 'changed', groups: ['welcome'], roles: ['webpubsub.sendToGroup.welcome'] }),
  strip: (_, res) => res.success({ userId: '', groups: [], roles: [] }),
  custom: (_, res) => res.success({ subprotocol: 'chat.v2' }),
  state: (_, res) => {
    res.setState('count', 10);
    res.success();
  },
};

// afterConnect is what both hubs have in common.
const afterConnect = {
  onConnected: (req) => saw(req.context, { event: 'connected', ...req }),
  onDisconnected: (req) => saw(req.context, { event: 'disconnected', ...req }),
  handleUserEvent(req, res) {
    saw(req.context, { event: 'user', ...req, data: plain(req.data) });
    switch (req.context.eventName) {
      case 'echo':
      case 'message': // what a plain WebSocket's frames are called
        if (req.dataType === 'json') res.success(JSON.stringify(req.data), 'json');
        else res.success(req.data, req.dataType);
        break;
      case 'count':
        res.setState('count', (req.context.states.count ?? 0) + 1);
        res.success(JSON.stringify(req.context.states), 'json');
        break;
      case 'refuse':
        res.setState('count', -1); // what a refusal leaves behind must not count
        res.fail(400, 'no');
        break;
      case 'crash':
        res.fail(500, 'broken');
        break;
      case 'hang': // is never answered
        break;
      default:
        res.success();
    }
  },
};

const events = new WebPubSubEventHandler('events', {
  path: '/eventhandler',
  handleConnect(req, res) {
    saw(req.context, { event: 'connect', ...req });
    const answer = connectCases[req.query?.case?.[0]];
    if (answer) answer(req, res);
    else res.success();
  },
  ...afterConnect,
});

const mqttConnectCases = {
  stranger: (_, res) => res.fail(401, 'who are you?'),
  banned: ({ mqtt: { protocolVersion } }, res) =>
    res.failWith({ mqtt: { code: protocolVersion === 5 ? 138 : 5, reason: 'banned', userProperties: [{ name: 'until', value: 'noon' }] } }),
};

const mqtt = new WebPubSubEventHandler('mqtt', {
  path: '/mqtt',
  handleConnect(req, res) {
    saw(req.context, { event: 'connect', ...req });
    const answer = mqttConnectCases[req.mqtt.username];
    if (answer) answer(req, res);
    else res.success({ userId: 'kim', mqtt: { userProperties: [{ name: 'hello', value: 'kim' }] } });
  },
  ...afterConnect,
});

const app = express();
app.get('/seen', (req, res) => {
  const { connectionId, count } = req.query;
  const look = () => {
    const list = seen.get(connectionId) ?? [];
    if (list.length < Number(count)) return;
    done(list);
  };
  const done = (list) => {
    clearTimeout(timer);
    waiting.delete(look);
    res.json(list);
  };
  const timer = setTimeout(() => done(seen.get(connectionId) ?? []), 60_000);
  waiting.add(look);
  look();
});
app.use('/eventhandler', (req, res, next) => {
  // The CloudEvents headers as they came, beside what the middleware makes of them.
  const id = req.headers['ce-connectionid'];
  if (id) {
    saw({ connectionId: id }, { event: 'headers', method: req.method, headers: req.headers });
    res.on('close', () => res.writableEnded || saw({ connectionId: id }, { event: 'cancelled', name: req.headers['ce-eventname'] }));
  }
  next();
});
app.use(events.getMiddleware());
app.use(mqtt.getMiddleware());

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
