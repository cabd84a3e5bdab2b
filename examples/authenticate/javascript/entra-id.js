// An application server that Entra ID vouches for: it has no key of the node's, and
// may do what the role says that the node's settings assign to it.
const { DefaultAzureCredential } = require('@azure/identity');
const { WebPubSubServiceClient } = require('@azure/web-pubsub');

async function main() {
  // Takes what it finds: a managed identity, a workload identity, who is logged in on this
  // machine, or a client secret in AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET. Any
  // other TokenCredential will do as well. An authority of your own, in AZURE_AUTHORITY_HOST,
  // is not in Microsoft's list, so there it must not be looked up.
  const credential = new DefaultAzureCredential({ disableInstanceDiscovery: 'AZURE_AUTHORITY_HOST' in process.env });

  // https only: the SDK sends no token over plain HTTP.
  const service = new WebPubSubServiceClient(process.env.ENDPOINT ?? 'https://localhost:8080', credential, 'chat');
  await service.sendToAll('hello from a server without a key', { contentType: 'text/plain' });

  // Without a key the server cannot sign a client's token. It asks the node to.
  const { url } = await service.getClientAccessToken({ userId: 'ann', expirationTimeInMinutes: 5 });
  console.log('ann may connect with', url);
}

main();
