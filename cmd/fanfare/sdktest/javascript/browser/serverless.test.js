'use strict';
// The serverless example, used as two people would, and as nobody should.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { open } = require('./browser');

const { SERVERLESS_URL: url } = process.env;

test('two tabs chat', async (t) => {
  const browser = await open(t);
  const shows = async (page, ...want) => {
    const lines = page.locator('#log li');
    const last = lines.nth(want.length - 1);
    await last.waitFor({ timeout: 60_000 }).catch(() => {});
    assert.deepEqual(await lines.allTextContents(), want);
  };
  const type = async (page, text) => {
    await page.locator('#text').fill(text);
    await page.locator('#text').press('Enter');
  };
  const tab = async (name) => {
    const page = await browser.newPage();
    page.on('pageerror', (e) => assert.fail(`the page of ${name} failed: ${e}`));
    await page.goto(`${url}/index`);
    await type(page, name);
    await page.getByPlaceholder('Your message').waitFor({ timeout: 60_000 });
    return page;
  };

  const ann = await tab('Ann');
  const bo = await tab('Bo');
  await shows(ann, 'Bo is coming'); // which was said before Bo was there
  await type(bo, 'Hello, is <i>anybody</i> there?');
  await shows(ann, 'Bo is coming', 'Bo: Hello, is <i>anybody</i> there?');
  await type(ann, 'Only a few functions 👋');
  await shows(ann, 'Bo is coming', 'Bo: Hello, is <i>anybody</i> there?', 'Ann: Only a few functions 👋');
  await shows(bo, 'Bo: Hello, is <i>anybody</i> there?', 'Ann: Only a few functions 👋');
});

test('who gives no name is turned away', async (t) => {
  const browser = await open(t);
  const page = await browser.newPage();
  await page.goto(`${url}/index`);
  await page.evaluate(() => join(''));
  await page.locator('#log li').filter({ hasText: 'You are not connected.' }).waitFor({ timeout: 60_000 });
});

test('who is not the node says nothing', async () => {
  for (const signature of [undefined, 'sha256=0', `sha256=${'0'.repeat(64)}`]) {
    const reply = await fetch(`${url}/message`, {
      method: 'POST',
      headers: { 'ce-connectionId': '1', 'ce-userId': 'Ann', ...(signature && { 'ce-signature': signature }) },
      body: 'I am not Ann',
    });
    assert.equal(reply.status, 401);
  }
});
