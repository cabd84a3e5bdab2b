// Sends a text through the service of this example, by its access key or, where there
// is no CONNECTION_STRING, by a token of Entra ID. It is written for Azure's service.
const { SmsClient } = require('@azure/communication-sms');
const { DefaultAzureCredential } = require('@azure/identity');

function client() {
  const { CONNECTION_STRING: connectionString, ENDPOINT: endpoint, AZURE_AUTHORITY_HOST: authority } = process.env;
  if (connectionString) {
    // Over plain HTTP the SDK signs only if it is told to.
    return new SmsClient(connectionString, { allowInsecureConnection: /^endpoint=http:/i.test(connectionString) });
  }
  // Takes what it finds; an authority of your own is not in Microsoft's list, so there it
  // must not be looked up. https only: the SDK shows no token over plain HTTP.
  return new SmsClient(endpoint ?? 'https://localhost:8092', new DefaultAzureCredential({ disableInstanceDiscovery: authority !== undefined }));
}

async function main() {
  try {
    const results = await client().send({ from: '+14255550100', to: ['+14255550123', '4255550123'], message: 'hello' });
    for (const { to, successful, httpStatusCode } of results) {
      console.log(successful ? 'sent' : 'not sent', 'to', to, httpStatusCode);
    }
  } catch (e) {
    if (!e.response) throw e;
    const { error } = JSON.parse(e.response.bodyAsText);
    console.log('refused:', e.statusCode, error.innererror?.code ?? error.code);
  }
}

main();
