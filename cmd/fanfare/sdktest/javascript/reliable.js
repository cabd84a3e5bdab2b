'use strict';
// A client of the reliable protocol, as the SDK makes it by default, that prints
// what it is handed until it is told "bye". Only "connected", "joined", messages
// and "stopped" are what a client sees that loses nothing.

const { WebPubSubClient } = require('@azure/web-pubsub-client');
const { service } = require('./fanfare');

async function main() {
  const { url } = await service('reliable').getClientAccessToken({ roles: ['webpubsub.joinLeaveGroup.room'] });
  const client = new WebPubSubClient(url);
  let told = false; // to stop
  const connected = new Promise((resolve) => client.on('connected', resolve));
  client.on('connected', () => console.log('connected'));
  client.on('disconnected', () => told || console.log('disconnected'));
  client.on('stopped', () => {
    console.log('stopped');
    process.exit(0); // the SDK's timers would keep it for minutes
  });
  client.on('group-message', ({ message }) => {
    if (message.data === 'bye') {
      told = true;
      client.stop();
    } else {
      console.log(`got ${message.sequenceId} ${message.data}`);
    }
  });
  await client.start();
  await connected;
  await client.joinGroup('room');
  console.log('joined');
}

main();
