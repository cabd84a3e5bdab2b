'use strict';
// The chat-users example, used as people would: on several devices, for an hour, and
// until they leave.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { open } = require('./browser');
const { key, opened, refused, service } = require('../fanfare');

const { CHAT_USERS_URL: url, CHAT_USERS_SCREENSHOT: screenshot } = process.env;
const soon = { timeout: 60_000 };
const minute = 60_000;

let browser;
before(async () => { browser = await open({ after() {} }); });
after(() => browser.close());

// device opens the page with cookies of its own, as on a device of its own, at the door. A
// page knows the sockets that it opens, the latest first.
async function device(t, { clock } = {}) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(soon.timeout);
  page.on('pageerror', (e) => assert.fail(`the page failed: ${e}`));
  page.sockets = [];
  page.on('websocket', (socket) => page.sockets.unshift(socket));
  if (clock) await page.clock.install();
  await page.goto(url);
  return page;
}

const press = (page, name) => page.getByRole('button', { name, exact: true }).click();

async function knock(page, name, password, button) {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await press(page, button);
}

async function enter(page, name, button = 'Sign in') {
  await knock(page, name, `the password of ${name}`, button);
  await state(page, 'Connected');
  return page;
}

async function tells(page, role, pattern) {
  try {
    await page.getByRole(role).filter({ hasText: pattern }).waitFor();
  } catch {
    assert.fail(`waited for ${pattern}, the page tells ${JSON.stringify(await page.locator('[role=status], [role=alert]').allTextContents())}`);
  }
}
const state = (page, word) => tells(page, 'status', new RegExp(`^${word}$`));
const complains = (page, line) => tells(page, 'alert', new RegExp(`^${line}$`));
const atDoor = (page) => page.locator('#door').waitFor();

async function says(page, text) {
  await page.getByLabel('Your message').fill(text);
  await page.getByLabel('Your message').press('Enter');
}

// shows waits until a page's last lines are these. A line is a time, a name and a text.
async function shows(page, ...want) {
  const lines = page.locator('#log li');
  try {
    await lines.last().filter({ hasText: want.at(-1) }).waitFor();
  } catch {
    assert.fail(`waited for ${JSON.stringify(want)}, the page shows ${JSON.stringify(await lines.allTextContents())}`);
  }
  const got = await lines.evaluateAll((list) => list.map((line) => line.textContent.slice(line.querySelector('time').textContent.length)));
  assert.deepEqual(got.slice(-want.length), want);
}

const tokenIn = (socketURL) => new URL(socketURL).searchParams.get('access_token');

// passes lets time go by on a page whose clock the test has. A page that is awake hears
// from the node all the time, so it gets an answer before the next part passes.
async function passes(page, ms) {
  const pong = page.sockets[0].waitForEvent('framereceived', { ...soon, predicate: ({ payload }) => payload.includes('"pong"') });
  await page.clock.fastForward(ms);
  await pong;
}

test('two people chat, and go on with the next token when the first is about to end', async (t) => {
  const ann = await device(t, { clock: true });
  const first = ann.waitForResponse('**/token');
  await enter(ann, 'Ann', 'Create an account');
  const bo = await enter(await device(t), 'Bo', 'Create an account');
  const issued = await (await first).json();
  assert.equal(tokenIn(ann.sockets[0].url()), issued.token);
  assert.match(issued.userId, /^8:acs:/);
  assert.match(await ann.locator('#token').textContent(), /^Token issued at .+, good until .+\.$/);

  await says(ann, 'Hello Bo, <b>how</b> are you?');
  await shows(bo, 'Ann: Hello Bo, <b>how</b> are you?');
  await says(bo, 'Fine, thanks 👋');
  for (const page of [ann, bo]) await shows(page, 'Ann: Hello Bo, <b>how</b> are you?', 'Bo: Fine, thanks 👋');
  if (screenshot) await ann.screenshot({ path: screenshot });

  // Ten minutes before the end of the hour the page gets another token, and stays connected.
  for (let i = 0; i < 49; i++) await passes(ann, minute);
  assert.equal(await ann.locator('#token').getAttribute('data-renewals'), '0', 'renewals within 49 minutes');
  const second = ann.waitForResponse('**/token');
  await passes(ann, 1.8 * minute);
  const renewed = await (await second).json();
  await ann.locator('#token[data-renewals="1"]').filter({ hasText: /^Token renewed at .+, good until .+\.$/ }).waitFor();
  assert.notEqual(renewed.token, issued.token);
  assert.equal(renewed.userId, issued.userId);
  await says(ann, 'Still here');
  await shows(bo, 'Bo: Fine, thanks 👋', 'Ann: Still here');
  assert.equal(ann.sockets.length, 1, 'sockets within an hour');

  // The next connection is made with it.
  const next = ann.waitForEvent('websocket');
  await service('chat').closeUserConnections(issued.userId);
  assert.equal(tokenIn((await next).url()), renewed.token);
  await state(ann, 'Connected');
  await says(bo, 'Welcome back');
  await shows(ann, 'Ann: Still here', '(Connected again. What was said meanwhile is missing here.)', 'Bo: Welcome back');
});

test('who is not known, or asks for too much, is told so in one line', async (t) => {
  const page = await device(t);
  await enter(page, 'Cy', 'Create an account');
  await press(page, 'Sign out');
  await complains(page, 'You are signed out\\.');
  await atDoor(page);
  for (const [name, password, button, line] of [
    ['Cy', 'the password of Bo', 'Sign in', 'Name or password is wrong\\.'],
    ['Nobody', 'the password of Cy', 'Sign in', 'Name or password is wrong\\.'],
    ['cy', 'the password of Cy', 'Create an account', 'That name is taken\\.'],
    ['Di', 'short', 'Create an account', 'A password has 8 to 200 characters\\.'],
    ['<Di>', 'the password of Di', 'Create an account', 'A name has 1 to 32 letters, digits, .*'],
  ]) {
    await knock(page, name, password, button);
    await complains(page, line);
  }
  assert.equal(page.sockets.length, 1, 'sockets');
});

test('signing out everywhere ends all connections and tokens of one person', async (t) => {
  const laptop = await enter(await device(t), 'Ed', 'Create an account');
  const phone = await enter(await device(t), 'Ed');
  const fay = await enter(await device(t), 'Fay', 'Create an account');
  const used = [laptop, phone].map((page) => page.sockets[0].url());
  const ended = phone.sockets[0].waitForEvent('close', soon);

  await press(laptop, 'Sign out everywhere');
  await complains(laptop, 'You are signed out everywhere\\.');
  await ended;
  await complains(phone, 'You are signed out\\.');
  await atDoor(phone);
  for (const socketURL of used) assert.equal(await refused(socketURL), 401);

  // A later token is good, and nobody else has noticed.
  await enter(phone, 'Ed');
  await says(phone, 'I lost my laptop');
  await shows(fay, 'Ed: I lost my laptop');
  assert.equal(fay.sockets.length, 1, 'sockets of Fay');
});

test('a deleted account is gone, and its connections and tokens with it', async (t) => {
  const laptop = await enter(await device(t), 'Gil', 'Create an account');
  const phone = await enter(await device(t), 'Gil');
  const used = phone.sockets[0].url();

  laptop.once('dialog', (dialog) => dialog.dismiss());
  await press(laptop, 'Delete account');
  await says(laptop, 'On second thoughts');
  await shows(phone, 'Gil: On second thoughts');

  laptop.once('dialog', (dialog) => dialog.accept());
  await press(laptop, 'Delete account');
  await complains(laptop, 'Your account is deleted\\.');
  await complains(phone, 'You are signed out\\.');
  assert.equal(await refused(used), 401);
  await knock(laptop, 'Gil', 'the password of Gil', 'Sign in');
  await complains(laptop, 'Name or password is wrong\\.');
});

// ask is a request to the service that no page makes.
const ask = (method, path, headers, body) => fetch(url + path, { method, headers: { 'Content-Type': 'application/json', ...headers }, body });
const own = { Origin: url };

// signUp creates an account and returns the header that signs it in.
async function signUp(name) {
  const created = await ask('POST', '/accounts', own, JSON.stringify({ name, password: `the password of ${name}` }));
  assert.equal(created.status, 200);
  const cookie = created.headers.get('set-cookie');
  assert.match(cookie, /^session=[\w-]{43};.*; HttpOnly; SameSite=Strict$/);
  return { Cookie: cookie.split(';')[0] };
}

test('a token opens one group of one hub', async (t) => {
  const signedIn = await signUp('Ivy');
  const { hub } = await (await ask('GET', '/session', signedIn)).json();
  const { token, userId } = await (await ask('POST', '/token', { ...own, ...signedIn })).json();
  const socket = await opened(t, `${hub}?access_token=${token}`, ['json.webpubsub.azure.v1']);
  const answer = async () => JSON.parse(await socket.inbox.next());
  assert.equal((await answer()).userId, userId);
  let ackId = 0;
  for (const [group, success, name] of [['lobby', true], ['attic', false, 'Forbidden']]) {
    for (const type of ['joinGroup', 'sendToGroup']) {
      socket.send(JSON.stringify({ type, group, ackId: ++ackId, dataType: 'text', data: 'hello', noEcho: true }));
      const ack = await answer();
      assert.deepEqual([ack.success, ack.error?.name], [success, name], `${type} ${group}`);
    }
  }
  assert.equal(await refused(`${hub.replace('/chat', '/other')}?access_token=${token}`), 403);
});

test('only the page itself, signed in, gets anything from the service, and not too much', async () => {
  const signedIn = await signUp('Hal');
  for (const request of [['GET', '/'], ['GET', '/page.js'], ['GET', '/session', signedIn], ['POST', '/token', { ...own, ...signedIn }]]) {
    const answer = await ask(...request);
    assert.equal(answer.status, 200, request[1]);
    assert.ok(!(await answer.text()).includes(key), `the access key is in ${request[1]}`);
  }

  for (const [what, status, ...request] of [
    ['no session', 401, 'POST', '/token', own],
    ['a session that there is not', 401, 'POST', '/token', { ...own, Cookie: `session=${'A'.repeat(43)}` }],
    ['names without a session', 401, 'GET', '/names/8:acs:1_2', {}],
    ['no origin', 403, 'POST', '/token', signedIn],
    ['another port', 403, 'POST', '/token', { ...signedIn, Origin: 'http://127.0.0.1:1' }],
    ['another site', 403, 'DELETE', '/account', { ...signedIn, Origin: 'https://example.com' }],
    ['too much', 413, 'POST', '/session', own, JSON.stringify({ name: 'a'.repeat(3000) })],
    ['no JSON', 400, 'POST', '/session', own, '{'],
    ['other types', 400, 'POST', '/session', own, '{"name":{},"password":[]}'],
    ['nobody', 404, 'GET', '/names/8:acs:1_2', signedIn],
  ]) {
    const answer = await ask(...request);
    assert.equal(answer.status, status, what);
    assert.deepEqual(Object.keys(await answer.json()), ['error'], what);
  }

  // A count begins anew with each minute, so twice as much is most.
  for (const [most, ...request] of [[60, 'POST', '/token', { ...own, ...signedIn }], [60, 'POST', '/session', own, '{}']]) {
    let answers = 0;
    while ((await ask(...request)).status !== 429) assert.ok(++answers <= most, `${answers} answers of ${request[1]}`);
  }
});
