#:package Azure.Identity@1.21.0
#:package Azure.Messaging.WebPubSub@1.7.0

// An application server that Entra ID vouches for: it has no key of the node's, and may do
// what the role says that the node's settings assign to it.

using Azure.Core;
using Azure.Identity;
using Azure.Messaging.WebPubSub;

// Takes what it finds: a managed identity, a workload identity, who is logged in on this
// machine, or a client secret in AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET. Any
// other TokenCredential will do as well. An authority of your own, in AZURE_AUTHORITY_HOST,
// is not in Microsoft's list, so there it must not be looked up.
var credential = new DefaultAzureCredential(new DefaultAzureCredentialOptions
{
    DisableInstanceDiscovery = Environment.GetEnvironmentVariable("AZURE_AUTHORITY_HOST") is not null,
});

// https only: the SDK sends no token over plain HTTP.
var endpoint = new Uri(Environment.GetEnvironmentVariable("ENDPOINT") ?? "https://localhost:8080");
var service = new WebPubSubServiceClient(endpoint, "chat", credential);
await service.SendToAllAsync("hello from a server without a key", ContentType.TextPlain);

// Without a key the server cannot sign a client's token. It asks the node to.
var url = await service.GetClientAccessUriAsync(TimeSpan.FromMinutes(5), userId: "ann");
Console.WriteLine($"ann may connect with {url.AbsoluteUri}");
