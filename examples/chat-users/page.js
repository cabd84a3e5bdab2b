// What runs in the browser. It never sees the access key, only tokens for its own user that
// last an hour, and keeps those nowhere but in memory.
import { AzureCommunicationTokenCredential } from '@azure/communication-common';
import { WebPubSubClient, WebPubSubJsonProtocol } from '@azure/web-pubsub-client';

const room = 'lobby';
const mostLines = 200;
const get = (id) => document.getElementById(id);
const clock = (date) => date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });

// complain says what is wrong in one line, or that nothing is.
const complain = (line = '') => { get('error').textContent = line; };

// Whoever is signed in on this page; undefined until then.
let me; // a name, and the URL of the hub
let client;
let credential;
let token; // the last one
let cut = false; // whether there was a connection before

// ask calls the service. What it refuses is an error with the line it said.
async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, ...(body && { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }) });
  } catch {
    throw new Error('The service is out of reach. Try again.');
  }
  const said = answer.status === 204 ? {} : await answer.json();
  if (answer.ok) return said;
  if (answer.status === 401 && me && (!parting || method === 'DELETE')) leave(said.error);
  throw new Error(said.error);
}

// parting is whether somebody has asked to leave. The connection may end before the answer
// to that is here, but only the answer tells how it went.
let parting = false;

// leave starts the page over, which ends the connection and forgets the token and all that
// was said. The state of the history is what stays, and holds why.
function leave(why) {
  history.replaceState(why, '');
  location.reload();
}

function welcome() {
  complain(history.state ?? '');
  history.replaceState(null, '');
  get('door').hidden = false;
  get('sign-in').elements.name.focus();
}

function enter(about) {
  me = about;
  get('me').textContent = me.name;
  get('door').hidden = true;
  get('chat').hidden = get('connection').hidden = false;
  get('text').focus();
  // The page comes back by itself: the SDK would try a revoked token again and again, and
  // its reliable protocol the first token, long after that has ended.
  client = new WebPubSubClient({ getClientAccessUrl }, {
    protocol: WebPubSubJsonProtocol(), autoReconnect: false, autoRejoinGroups: false,
  });
  client.on('connected', join);
  client.on('stopped', reconnect);
  client.on('group-message', ({ message }) => show(message));
  connect();
}

// connect tries until there is a connection.
async function connect(wait = 0) {
  for (; ; wait = Math.min(2 * wait || 1000, 30_000)) {
    state('Connecting');
    await new Promise((resolve) => { setTimeout(resolve, wait); });
    try {
      return await client.start();
    } catch (err) { // a browser does not say why it could not open a WebSocket
      complain(err.message ?? 'The chat is out of reach, or does not let you in. Trying again.');
      // The token may be the reason, so the next try brings another one.
      credential?.dispose();
      credential = undefined;
    }
  }
}

// A connection that ends may be the first sign of having been signed out elsewhere.
async function reconnect() {
  cut = true;
  state('Connecting');
  await ask('GET', '/session').catch(() => {}); // which leaves, if so
  connect(1000);
}

// getClientAccessUrl is where to connect, with the token that is good at that time.
async function getClientAccessUrl() {
  credential ??= new AzureCommunicationTokenCredential({
    token: await newToken('issued'),
    tokenRefresher: renew,
    refreshProactively: true, // ten minutes before the end, and not only when somebody needs it
  });
  const { token } = await credential.getToken();
  return `${me.hub}?access_token=${encodeURIComponent(token)}`;
}

async function newToken(word) {
  const answer = await ask('POST', '/token');
  get('token').textContent = `Token ${word} at ${clock(new Date())}, good until ${clock(new Date(answer.expiresOn))}.`;
  token = answer.token;
  return token;
}

// renew gets the token of the next connection; the one there is goes on. If there is none
// to be had now, the old one still serves, and the credential asks again halfway to its end.
async function renew() {
  try {
    await newToken('renewed');
    get('token').dataset.renewals++;
  } catch (err) {
    complain(`The token could not be renewed. ${err.message}`);
  }
  return token;
}

async function join() {
  try {
    await client.joinGroup(room);
    state('Connected');
    complain();
    if (cut) addLine('(Connected again. What was said meanwhile is missing here.)');
  } catch (err) {
    complain(`You cannot enter the ${room}. ${err.errorDetail?.message ?? err.message}`);
  }
}

function state(word) {
  get('connection').textContent = word;
  get('connection').dataset.state = word.toLowerCase();
}

// show adds what somebody wrote, which is only ever text, never markup. Who wrote it is what
// the node says, and not the message, in which anybody could claim anything.
async function show({ fromUserId, dataType, data }) {
  if (dataType !== 'text') return;
  const who = addLine(data.slice(0, 1000));
  const name = await nameOf(fromUserId); // the line keeps its place meanwhile
  who.textContent = `${name}: `;
  who.classList.toggle('me', name === me.name);
}

// addLine returns the place in front of the text, for who says so.
function addLine(text) {
  const log = get('log');
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = log.appendChild(document.createElement('li'));
  const when = line.appendChild(document.createElement('time'));
  when.textContent = clock(new Date());
  const who = line.appendChild(document.createElement('b'));
  line.append(text);
  while (log.childElementCount > mostLines) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
  return who;
}

const names = new Map(); // promises, by user
function nameOf(userId) {
  if (!names.has(userId)) {
    names.set(userId, ask('GET', `/names/${encodeURIComponent(userId)}`).then(({ name }) => name, () => {
      names.delete(userId); // to be asked for again
      return 'Somebody';
    }));
  }
  return names.get(userId);
}

get('sign-in').onsubmit = async (e) => {
  e.preventDefault();
  const form = e.target;
  if (form.ariaBusy) return; // once is enough
  form.ariaBusy = 'true';
  complain();
  try {
    enter(await ask('POST', e.submitter.value, Object.fromEntries(new FormData(form))));
    form.reset();
  } catch (err) {
    complain(err.message);
    form.elements.password.select();
  } finally {
    form.ariaBusy = null;
  }
};

get('say').onsubmit = async (e) => {
  e.preventDefault();
  const input = get('text');
  const text = input.value.trim();
  if (!text) return;
  input.value = '';
  try {
    await client.sendToGroup(room, text, 'text');
    complain();
  } catch (err) {
    input.value ||= text;
    complain(`Not sent. ${err.errorDetail?.message ?? err.message}`);
  }
};

for (const button of document.querySelectorAll('[data-path]')) {
  button.onclick = async () => {
    if (button.dataset.sure && !confirm(button.dataset.sure)) return;
    parting = true;
    try {
      await ask('DELETE', button.dataset.path);
      leave(button.dataset.done);
    } catch (err) {
      parting = false;
      complain(err.message);
    }
  };
}

ask('GET', '/session').then(enter, welcome);
