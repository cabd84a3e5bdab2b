// What the functions share: the hub, and how to know the node's events from anybody else's.
const { createHmac, timingSafeEqual } = require('node:crypto');
const { WebPubSubServiceClient } = require('@azure/web-pubsub');

const connectionString = process.env.CONNECTION_STRING
  ?? 'Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;';
const key = /AccessKey=([^;]+)/.exec(connectionString)[1];

const service = new WebPubSubServiceClient(connectionString, 'serverless', { allowInsecureConnection: true });

const say = (from, text) => service.sendToAll({ from, text });

// onEvent makes a function of one that is called with each event: with its user and its data.
const onEvent = (handle) => async (_, req) => {
  // Only the node knows the key, so only the node can have signed the connection's id.
  const id = req.headers['ce-connectionid'] ?? '';
  const signature = Buffer.from(`sha256=${createHmac('sha256', key).update(id).digest('hex')}`);
  const signed = (req.headers['ce-signature'] ?? '').split(',').map((s) => Buffer.from(s))
    .some((s) => s.length === signature.length && timingSafeEqual(s, signature));
  if (!signed) return { status: 401 };
  return (await handle(req.headers['ce-userid'], req.body)) ?? { status: 204 };
};

module.exports = { onEvent, say, service };
