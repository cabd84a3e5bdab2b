// A client that proves itself by a certificate in the TLS handshake, and by nothing else:
// its URL holds no token. Who judges the certificate is up to the hub.
const { readFileSync } = require('node:fs');
const WebSocket = require('ws');

const url = process.env.URL ?? 'wss://localhost:8080/client/hubs/guarded';
const certificate = process.env.CERT_FILE && { cert: readFileSync(process.env.CERT_FILE), key: readFileSync(process.env.KEY_FILE) };

const client = new WebSocket(url, 'json.webpubsub.azure.v1', certificate || {});
client.on('unexpected-response', (_, response) => {
  console.error('refused:', response.statusCode);
  process.exit(1);
});
client.on('message', (frame) => {
  const message = JSON.parse(frame);
  if (message.event === 'connected') console.log('connected as', message.userId);
  if (message.type === 'message') {
    console.log('received:', message.data);
    client.close();
  }
});
