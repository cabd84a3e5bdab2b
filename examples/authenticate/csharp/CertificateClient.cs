// A client that proves itself by a certificate in the TLS handshake, and by nothing else:
// its URL holds no token. Who judges the certificate is up to the hub.

using System.Net.WebSockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;

var url = new Uri(Environment.GetEnvironmentVariable("URL") ?? "wss://localhost:8080/client/hubs/guarded");

using var client = new ClientWebSocket();
client.Options.AddSubProtocol("json.webpubsub.azure.v1");
client.Options.CollectHttpResponseDetails = true; // so that a refusal has a status
if (Environment.GetEnvironmentVariable("P12_FILE") is { } file)
{
    var password = Environment.GetEnvironmentVariable("P12_PASSWORD");
    client.Options.ClientCertificates.Add(X509CertificateLoader.LoadPkcs12FromFile(file, password));
}

try
{
    await client.ConnectAsync(url, CancellationToken.None);
}
catch (WebSocketException) when (client.HttpStatusCode != 0)
{
    Console.Error.WriteLine($"refused: {(int)client.HttpStatusCode}");
    return 1;
}

while (true)
{
    using var message = JsonDocument.Parse(await Read());
    var said = message.RootElement;
    if (said.TryGetProperty("event", out var e) && e.GetString() == "connected")
    {
        Console.WriteLine($"connected as {said.GetProperty("userId")}");
    }
    else if (said.GetProperty("type").GetString() == "message")
    {
        Console.WriteLine($"received: {said.GetProperty("data")}");
        await client.CloseAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None);
        return 0;
    }
}

async Task<string> Read()
{
    using var frames = new MemoryStream();
    var buffer = new byte[4096];
    WebSocketReceiveResult part;
    do
    {
        part = await client.ReceiveAsync(buffer, CancellationToken.None);
        frames.Write(buffer, 0, part.Count);
    } while (!part.EndOfMessage);
    return Encoding.UTF8.GetString(frames.ToArray());
}
