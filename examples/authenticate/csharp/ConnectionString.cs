#:package Azure.Messaging.WebPubSub@1.7.0

// An application server with a connection string. The key in it opens everything, so
// the string never leaves the server; in return nothing else is needed.

using Azure.Core;
using Azure.Messaging.WebPubSub;

var connectionString = Environment.GetEnvironmentVariable("CONNECTION_STRING")
    ?? "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;";
var service = new WebPubSubServiceClient(connectionString, "chat");

// Send to everybody in the hub, and to one user on all of her connections.
await service.SendToAllAsync("""{"text":"hello, everybody"}""", ContentType.ApplicationJson);
await service.SendToUserAsync("ann", "hello, ann", ContentType.TextPlain);

// Look at connections and change what they may do, here: what they hear.
bool here = await service.UserExistsAsync("ann");
Console.WriteLine($"ann is here: {here}");
if (here) // who is not connected is not found
{
    await service.AddUserToGroupAsync("news", "ann");
}
await service.SendToGroupAsync("news", "hello, readers", ContentType.TextPlain);

// End them.
await service.CloseUserConnectionsAsync("bo", reason: "it is late");
here = await service.UserExistsAsync("bo");
Console.WriteLine($"bo is here: {here}");
