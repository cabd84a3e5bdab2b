// An application server with a connection string. The key in it opens everything, so
// the string never leaves the server; in return nothing else is needed.
const { WebPubSubServiceClient } = require('@azure/web-pubsub');

const connectionString = process.env.CONNECTION_STRING
  ?? 'Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;';

async function main() {
  // The SDK refuses plain HTTP unless it is told that this is meant. With https it needs no options.
  const service = new WebPubSubServiceClient(connectionString, 'chat', { allowInsecureConnection: true });

  // Send to everybody in the hub, and to one user on all of her connections.
  await service.sendToAll({ text: 'hello, everybody' });
  await service.sendToUser('ann', 'hello, ann', { contentType: 'text/plain' });

  // Look at connections and change what they may do, here: what they hear.
  const here = await service.userExists('ann');
  console.log('ann is here:', here);
  const news = service.group('news');
  if (here) await news.addUser('ann'); // who is not connected is not found
  await news.sendToAll('hello, readers', { contentType: 'text/plain' });

  // End them.
  await service.closeUserConnections('bo', { reason: 'it is late' });
  console.log('bo is here:', await service.userExists('bo'));
}

main();
