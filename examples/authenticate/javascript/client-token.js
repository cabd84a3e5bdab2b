// A client with an access token. The server, which has the key, makes a URL with a
// token for one user, a few roles and an hour; the client, which has the URL and
// nothing else, connects with it.
const { WebPubSubServiceClient } = require('@azure/web-pubsub');
const { WebPubSubClient } = require('@azure/web-pubsub-client');

const connectionString = process.env.CONNECTION_STRING
  ?? 'Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;';

// What the server does when somebody asks for a URL, once it knows who that is. The
// token is signed here, without asking the node.
async function negotiate(userId) {
  const service = new WebPubSubServiceClient(connectionString, 'chat', { allowInsecureConnection: true });
  const { url } = await service.getClientAccessToken({
    userId,
    roles: ['webpubsub.joinLeaveGroup.room', 'webpubsub.sendToGroup.room'], // and nothing but this group
    expirationTimeInMinutes: 60,
  });
  return url;
}

// What the client does, in a browser or anywhere. It asks for a URL each time that it
// connects: in an application, by a request to the server.
async function main() {
  const client = new WebPubSubClient({ getClientAccessUrl: () => negotiate('ann') });
  client.on('connected', (e) => console.log('connected as', e.userId));
  client.on('group-message', (e) => {
    console.log('received:', e.message.data);
    client.stop();
  });
  client.on('stopped', () => process.exit()); // a timer of the SDK would go on for minutes
  await client.start();
  await client.joinGroup('room');
  await client.sendToGroup('room', 'hello from ann', 'text', { noEcho: true });
}

main();
