// A chat in one page of code: this server hands out client URLs, decides who may
// connect, and passes on what people say. The node keeps the connections.
const path = require('node:path');
const express = require('express');
const { WebPubSubServiceClient } = require('@azure/web-pubsub');
const { WebPubSubEventHandler } = require('@azure/web-pubsub-express');

const connectionString = process.env.CONNECTION_STRING
  ?? 'Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;';
const service = new WebPubSubServiceClient(connectionString, 'chat', { allowInsecureConnection: true });

const say = (from, text) => service.sendToAll({ from, text }).catch((err) => console.error(err.message));

const handler = new WebPubSubEventHandler('chat', {
  path: '/eventhandler',
  allowedEndpoints: [service.endpoint], // nobody else may call us
  handleConnect(req, res) {
    if (req.context.userId) res.success();
    else res.fail(401, 'a chat needs names');
  },
  onConnected: (req) => say('', `${req.context.userId} is here`),
  onDisconnected: (req) => say('', `${req.context.userId} has left`),
  async handleUserEvent(req, res) {
    await say(req.context.userId, req.data);
    res.success();
  },
});

const app = express();
app.use(handler.getMiddleware());
app.get('/', (_, res) => res.sendFile(path.join(__dirname, '..', 'index.html')));
app.get('/negotiate', async (req, res) => {
  const { url } = await service.getClientAccessToken({ userId: req.query.id });
  res.json({ url });
});
const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', (err) => {
  if (err) throw err;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
