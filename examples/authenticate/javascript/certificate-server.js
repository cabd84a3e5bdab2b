// Clients without a token that show a certificate, judged by an application server: the
// node asks it about each client that wants to connect, and tells what the client showed.
const express = require('express');
const { WebPubSubEventHandler } = require('@azure/web-pubsub-express');

// Whom we know: users by the SHA-1 of their certificates, as "openssl x509 -fingerprint" prints it.
const plain = (thumbprint) => thumbprint.replaceAll(':', '').toLowerCase();
const users = { [plain(process.env.THUMBPRINT)]: 'drill-1' };

// The answer reveals nothing and changes nothing here, so it does not matter who asks.
const handler = new WebPubSubEventHandler('guarded', {
  path: '/eventhandler',
  handleConnect(req, res) {
    const shown = req.clientCertificates?.[0];
    if (!shown) return res.fail(401, 'show a certificate');
    // The TLS handshake has proved that the client has its key, but nobody has looked at who
    // signed it or until when. Knowing exactly this certificate makes up for both.
    const user = users[plain(shown.thumbprint)];
    if (!user) return res.fail(403, 'a certificate that nobody knows');
    res.success({ userId: user, groups: ['drills'] });
  },
});

const app = express();
app.use(handler.getMiddleware());
const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', (err) => {
  if (err) throw err;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
