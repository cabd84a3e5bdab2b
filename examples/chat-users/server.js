// The trusted service of a chat: it signs people in, and hands out the tokens that let them
// into the node. It alone has the access key. A browser gets a token for one user and an hour.
const path = require('node:path');
const { CommunicationIdentityClient } = require('@azure/communication-identity');
const esbuild = require('esbuild');
const express = require('express');
const { Accounts, refusal } = require('./accounts');
const { Sessions, Tries, lifetime } = require('./sessions');

// A node's own connection string ends in a version, which this SDK would take for a part of the key.
const connectionString = (process.env.CONNECTION_STRING
  ?? 'endpoint=http://127.0.0.1:8080;accesskey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH').replace(/;Version=.*/i, '');
const node = new URL(/endpoint=([^;]+)/i.exec(connectionString)[1]).origin.replace('http', 'ws');
const hub = `${node}/client/hubs/chat`;
const identity = new CommunicationIdentityClient(connectionString, { allowInsecureConnection: true, retryOptions: { maxRetries: 1 } });
const inTime = () => ({ abortSignal: AbortSignal.timeout(10_000) });

const accounts = new Accounts(process.env.ACCOUNTS_FILE ?? path.join(__dirname, 'data', 'accounts.json'));
const sessions = new Sessions();
const signIns = new Tries(30); // of an address
const tokens = new Tries(30); // of an account

// What the browser runs, with the SDKs in it.
const page = esbuild.buildSync({
  entryPoints: [path.join(__dirname, 'page.js')], bundle: true, format: 'esm', write: false, logLevel: 'error',
  nodePaths: (process.env.NODE_PATH ?? '').split(path.delimiter).filter(Boolean),
}).outputFiles[0].text;

const proxied = process.env.BEHIND_PROXY === 'true'; // on this machine, with TLS
const app = express();
app.disable('x-powered-by');
app.set('trust proxy', proxied && 'loopback');
app.use((_, res, next) => {
  res.set({
    // Whatever gets into the page can send nothing to anybody but us and the node.
    'Content-Security-Policy': `default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ${node}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'Cache-Control': 'no-store',
  });
  next();
});
app.use(express.json({ limit: '2kb' }));

app.get('/', (_, res) => res.sendFile(path.join(__dirname, 'index.html')));
app.get('/style.css', (_, res) => res.sendFile(path.join(__dirname, 'style.css')));
app.get('/page.js', (_, res) => res.type('js').send(page));

// Only our own page changes anything. The cookie's SameSite keeps other sites out, but
// another port of this host is the same site; where a request comes from, no page can forge.
app.use((req, _, next) => {
  const own = req.method === 'GET' || req.get('Origin') === `${req.protocol}://${req.host}`;
  next(own ? undefined : refusal(403, 'Use the page of this service.'));
});

const cookie = { httpOnly: true, sameSite: 'strict', secure: proxied, path: '/' };
const sessionId = (req) => /(?:^|; )session=([\w-]{43})(?:;|$)/.exec(req.headers.cookie ?? '')?.[1];

// signedIn puts the account of the request's session into req.account.
function signedIn(req, _, next) {
  req.account = sessions.account(sessionId(req));
  next(req.account ? undefined : refusal(401, 'You are signed out.'));
}

// signIn makes a handler of a function that turns a name and a password into an account.
const signIn = (find) => async (req, res) => {
  if (!signIns.allow(req.ip)) throw refusal(429, 'Too many tries. Wait a minute.');
  const { name, password } = req.body ?? {};
  if (typeof name !== 'string' || typeof password !== 'string') throw refusal(400, 'Send a name and a password.');
  const account = await find(name.trim().normalize('NFC'), password);
  await identify(account);
  if (!accounts.has(account)) throw refusal(401, 'The account has just been deleted.');
  res.cookie('session', sessions.begin(account), { ...cookie, maxAge: lifetime });
  res.json(about(account));
};
app.post('/accounts', signIn(async (name, password) => {
  const account = await accounts.create(name, password);
  try {
    await identify(account);
  } catch (err) {
    accounts.remove(account); // so that the name is there for another try
    throw err;
  }
  return account;
}));
app.post('/session', signIn((name, password) => accounts.check(name, password)));

// What the page knows of who is signed in, and where the chat is.
const about = (account) => ({ name: account.name, hub });
app.get('/session', signedIn, (req, res) => res.json(about(req.account)));

// identify makes the user of the node that goes with an account, if there is none yet.
const identifying = new Map();
async function identify(account) {
  if (account.userId) return;
  if (!identifying.has(account)) {
    identifying.set(account, identity.createUser(inTime()).finally(() => identifying.delete(account)));
  }
  const { communicationUserId } = await identifying.get(account);
  account.userId = communicationUserId;
  accounts.save();
}

app.post('/token', signedIn, async (req, res) => {
  const { userId, name } = req.account;
  if (!tokens.allow(name)) throw refusal(429, 'Too many tokens. Wait a minute.');
  const { token, expiresOn } = await identity.getToken({ communicationUserId: userId }, ['chat'], { tokenExpiresInMinutes: 60, ...inTime() });
  // Who was signed out meanwhile must not get a token that is newer than the revocation.
  if (!sessions.account(sessionId(req))) throw refusal(401, 'You are signed out.');
  res.json({ token, expiresOn, userId });
});

// The node says which user sent a message; whose name that is, only we know.
app.get('/names/:userId', signedIn, (req, res) => {
  const account = accounts.byUser(req.params.userId);
  if (!account) throw refusal(404, 'Nobody has that user any more.');
  res.json({ name: account.name });
});

app.delete('/session', signedIn, (req, res) => {
  sessions.end(sessionId(req));
  res.clearCookie('session', cookie).sendStatus(204);
});

// leaveAll ends all sessions of an account, and then what the node has of its user. In that
// order, or there would be new tokens meanwhile. If the node fails, whoever asked stays, to try again.
async function leaveAll(req, atNode) {
  const takeBack = sessions.endAll(req.account);
  try {
    await atNode({ communicationUserId: req.account.userId }, inTime());
  } catch (err) {
    takeBack(sessionId(req));
    throw err;
  }
}

// The node refuses the tokens that are out from now on, and closes the connections made with them.
app.delete('/sessions', signedIn, async (req, res) => {
  await leaveAll(req, (user, options) => identity.revokeTokens(user, options));
  res.clearCookie('session', cookie).sendStatus(204);
});

app.delete('/account', signedIn, async (req, res) => {
  await leaveAll(req, (user, options) => identity.deleteUser(user, options).catch((err) => {
    if (err.statusCode !== 404) throw err; // else it is gone already
  }));
  accounts.remove(req.account);
  sessions.endAll(req.account); // of whoever has signed in meanwhile
  res.clearCookie('session', cookie).sendStatus(204);
});

// Whoever asked reads one line. What is not a refusal of ours is for the log, and no stranger's business.
app.use((err, req, res, _) => { // four parameters make it the handler of errors
  const ours = err.status && err.status < 500 || err.status === 503;
  if (!ours) console.error(`${req.method} ${req.path}: ${err.message}`);
  res.status(ours ? err.status : 502).json({ error: ours ? err.message : 'The chat is out of reach. Try again.' });
});

const server = app.listen(process.env.PORT ?? 3000, '127.0.0.1', (err) => {
  if (err) throw err;
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
