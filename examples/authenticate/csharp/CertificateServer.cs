#:sdk Microsoft.NET.Sdk.Web

// Clients without a token that show a certificate, judged by an application server: the
// node asks it about each client that wants to connect, and tells what the client showed.

using System.Text.Json;

static string Plain(string thumbprint) => thumbprint.Replace(":", "").ToLowerInvariant();

// Whom we know: users by the SHA-1 of their certificates, as "openssl x509 -fingerprint" prints it.
var users = new Dictionary<string, string> { [Plain(Environment.GetEnvironmentVariable("THUMBPRINT")!)] = "drill-1" };

var app = WebApplication.Create(args);

// The node asks whether it may call us at all.
app.MapMethods("/eventhandler", ["OPTIONS"], (HttpContext x) =>
{
    x.Response.Headers["WebHook-Allowed-Origin"] = x.Request.Headers["WebHook-Request-Origin"];
    return Task.CompletedTask;
});

// The connect event. The answer reveals nothing and changes nothing here, so it does not
// matter who asks.
app.MapPost("/eventhandler", async (HttpContext x) =>
{
    using var body = await JsonDocument.ParseAsync(x.Request.Body);
    var shown = body.RootElement.GetProperty("clientCertificates");
    if (shown.GetArrayLength() == 0)
    {
        x.Response.StatusCode = 401;
        return;
    }
    // The TLS handshake has proved that the client has its key, but nobody has looked at who
    // signed it or until when. Knowing exactly this certificate makes up for both.
    if (!users.TryGetValue(Plain(shown[0].GetProperty("thumbprint").GetString()!), out var user))
    {
        x.Response.StatusCode = 403;
        return;
    }
    x.Response.ContentType = "application/json";
    await x.Response.WriteAsync($$"""{"userId":"{{user}}","groups":["drills"]}""");
});

app.Run($"http://127.0.0.1:{Environment.GetEnvironmentVariable("PORT") ?? "3000"}");
