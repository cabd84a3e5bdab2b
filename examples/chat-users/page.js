// What runs in the browser. It never sees the access key, only a token for its own user that
// lasts an hour, and keeps that nowhere but in memory.
import { AzureCommunicationTokenCredential } from '@azure/communication-common';
import { WebPubSubClient } from '@azure/web-pubsub-client';

const room = 'lobby';
const mostLines = 200;
const get = (id) => document.getElementById(id);
const clock = (date) => date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });

// complain says what is wrong in one line, or that nothing is.
const complain = (line = '') => { get('error').textContent = line; };

let session; // who is signed in; undefined while nobody is

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
  if (answer.status === 401 && session) session.leave('You are signed out.');
  throw new Error(said.error);
}

// A Session is one person signed in on one page.
class Session {
  #hub;
  #client;
  #credential;
  #token; // the last one
  #renewals = 0;
  #names = new Map(); // promises of names, by user

  constructor({ name, hub }) {
    this.name = name;
    this.#hub = hub;
    // The SDK's own way to reconnect would try a revoked token again and again.
    this.#client = new WebPubSubClient({ getClientAccessUrl: () => this.#url() }, { autoReconnect: false, autoRejoinGroups: false });
    this.#client.on('connected', () => this.#join());
    this.#client.on('stopped', () => this.#reconnect());
    this.#client.on('group-message', ({ message }) => this.#show(message));
  }

  start() {
    get('me').textContent = this.name;
    get('door').hidden = true;
    get('chat').hidden = get('connection').hidden = false;
    get('text').focus();
    this.#connect();
  }

  // leave ends the session here, and forgets everything.
  leave(why) {
    if (session !== this) return;
    session = undefined;
    this.#client.stop();
    this.#credential?.dispose();
    get('log').replaceChildren();
    get('token').textContent = '';
    welcome(why);
  }

  say(text) { return this.#client.sendToGroup(room, text, 'text'); }

  // #connect tries until there is a connection or nobody is signed in.
  async #connect(wait = 0) {
    this.#state('Connecting');
    for (; ; wait = Math.min(2 * wait || 1000, 30_000)) {
      await new Promise((resolve) => { setTimeout(resolve, wait); });
      if (session !== this) return;
      try {
        return await this.#client.start();
      } catch {
        // The token may be the reason, so the next try brings another one.
        this.#credential?.dispose();
        this.#credential = undefined;
      }
    }
  }

  // A connection that ends may be the first sign of having been signed out elsewhere.
  async #reconnect() {
    if (session !== this) return;
    this.#state('Connecting');
    await ask('GET', '/session').catch(() => {}); // which leaves, if so
    this.#connect(1000);
  }

  // #url is where to connect, with the token that is good at that time.
  async #url() {
    this.#credential ??= new AzureCommunicationTokenCredential({
      token: await this.#newToken(),
      tokenRefresher: () => this.#renew(),
      refreshProactively: true, // ten minutes before the end, and not only when somebody needs it
    });
    const { token } = await this.#credential.getToken();
    return `${this.#hub}?access_token=${encodeURIComponent(token)}`;
  }

  async #newToken() {
    const { token, expiresOn } = await ask('POST', '/token');
    const note = get('token');
    note.dataset.renewals = this.#renewals;
    note.textContent = `Token ${this.#renewals ? 'renewed' : 'issued'} at ${clock(new Date())}, good until ${clock(new Date(expiresOn))}.`;
    this.#token = token;
    return token;
  }

  // The connection stays: the new token is for the next one. Where none is to be had now,
  // the old one still serves, and the credential asks again halfway to its end.
  async #renew() {
    this.#renewals++;
    try {
      return await this.#newToken();
    } catch (err) {
      this.#renewals--;
      if (session === this) complain(`The token could not be renewed: ${err.message}`);
      return this.#token;
    }
  }

  async #join() {
    try {
      await this.#client.joinGroup(room);
      this.#state('Connected');
      complain();
    } catch (err) {
      complain(`You cannot enter the ${room}: ${err.errorDetail?.message ?? err.message}`);
    }
  }

  #state(word) {
    get('connection').textContent = word;
    get('connection').dataset.state = word.toLowerCase();
    get('say').querySelector('button').disabled = word !== 'Connected';
  }

  // #show adds a line; what people write is only ever text, never markup. Who wrote it is
  // what the node says, and not the message, in which anybody could claim anything.
  async #show({ fromUserId, dataType, data }) {
    if (dataType !== 'text') return;
    const log = get('log');
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const line = log.appendChild(document.createElement('li'));
    const who = document.createElement('b');
    const when = Object.assign(document.createElement('time'), { textContent: clock(new Date()) });
    line.append(when, who, data.slice(0, 1000));
    while (log.childElementCount > mostLines) log.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;

    const name = await this.#nameOf(fromUserId);
    who.textContent = `${name}: `;
    line.classList.toggle('mine', name === this.name);
  }

  #nameOf(userId) {
    if (!this.#names.has(userId)) {
      this.#names.set(userId, ask('GET', `/names/${encodeURIComponent(userId)}`).then(({ name }) => name, () => {
        this.#names.delete(userId); // to be asked for again
        return 'Somebody';
      }));
    }
    return this.#names.get(userId);
  }
}

function enter(about) {
  complain();
  session = new Session(about);
  session.start();
}

function welcome(why) {
  complain(why);
  get('chat').hidden = get('connection').hidden = true;
  get('door').hidden = false;
  get('sign-in').elements.name.focus();
}

get('sign-in').onsubmit = async (e) => {
  e.preventDefault();
  const form = e.target;
  if (form.ariaBusy) return; // once is enough
  form.ariaBusy = 'true';
  complain();
  try {
    const about = await ask('POST', e.submitter.value, Object.fromEntries(new FormData(form)));
    form.reset();
    enter(about);
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
    await session.say(text);
    complain();
  } catch (err) {
    input.value ||= text;
    complain(`Not sent: ${err.errorDetail?.message ?? err.message}`);
  }
};

for (const button of document.querySelectorAll('[data-path]')) {
  button.onclick = async () => {
    if (button.dataset.sure && !confirm(button.dataset.sure)) return;
    const leaving = session;
    try {
      await ask('DELETE', button.dataset.path);
      leaving.leave();
    } catch (err) {
      complain(err.message);
    }
  };
}

ask('GET', '/session').then(enter, (err) => welcome(err.message === 'You are signed out.' ? '' : err.message));
