#:package Azure.Messaging.WebPubSub@1.7.0
#:package Azure.Messaging.WebPubSub.Client@1.0.0

// A client with an access token. The server, which has the key, makes a URL with a token
// for one user, a few roles and an hour; the client, which has the URL and nothing else,
// connects with it.

using Azure.Messaging.WebPubSub;
using Azure.Messaging.WebPubSub.Clients;

// What the server does when somebody asks for a URL, once it knows who that is. The
// token is signed here, without asking the node.
async ValueTask<Uri> Negotiate(string user)
{
    var connectionString = Environment.GetEnvironmentVariable("CONNECTION_STRING")
        ?? "Endpoint=http://127.0.0.1:8080;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH;Version=1.0;";
    var service = new WebPubSubServiceClient(connectionString, "chat");
    return await service.GetClientAccessUriAsync(
        TimeSpan.FromHours(1),
        userId: user,
        roles: ["webpubsub.joinLeaveGroup.room", "webpubsub.sendToGroup.room"]); // and nothing but this group
}

// What the client does, anywhere. It asks for a URL each time that it connects: in an
// application, by a request to the server.
var heard = new TaskCompletionSource();
var client = new WebPubSubClient(new WebPubSubClientCredential(_ => Negotiate("ann")));
client.Connected += e =>
{
    Console.WriteLine($"connected as {e.UserId}");
    return Task.CompletedTask;
};
client.GroupMessageReceived += e =>
{
    Console.WriteLine($"received: {e.Message.Data}");
    heard.TrySetResult();
    return Task.CompletedTask;
};
await client.StartAsync();
await client.JoinGroupAsync("room");
await client.SendToGroupAsync("room", BinaryData.FromString("hello from ann"), WebPubSubDataType.Text, noEcho: true);
await heard.Task;
await client.StopAsync();
