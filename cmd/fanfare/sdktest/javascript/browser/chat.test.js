'use strict';
// The chat example, used as two people would: two tabs of a browser.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { open } = require('./browser');

const { CHATAPP_URL: url, CHATAPP_SCREENSHOT: screenshot } = process.env;

test('two tabs chat', async (t) => {
  const browser = await open(t);
  const lines = (page) => page.locator('#log li').allTextContents();
  // shows waits until a tab's last lines are these.
  const shows = async (page, ...want) => {
    const last = page.locator('#log li').last();
    try {
      await last.filter({ hasText: want.at(-1) }).waitFor({ timeout: 60_000 });
    } catch {
      assert.fail(`waited a minute for ${JSON.stringify(want)}, the tab shows ${JSON.stringify(await lines(page))}`);
    }
    assert.deepEqual((await lines(page)).slice(-want.length), want);
  };
  const type = async (page, text) => {
    await page.locator('#text').fill(text);
    await page.locator('#text').press('Enter');
  };
  const tab = async (name) => {
    const page = await browser.newPage();
    page.on('pageerror', (e) => assert.fail(`the page of ${name} failed: ${e}`));
    await page.goto(url);
    await type(page, name);
    return page;
  };

  const ann = await tab('Ann');
  await shows(ann, 'Ann is here');
  const bo = await tab('Bo');
  await shows(ann, 'Bo is here');
  await shows(bo, 'Bo is here');

  await type(ann, 'Hello Bo, <b>how</b> are you?');
  await shows(bo, 'Ann: Hello Bo, <b>how</b> are you?');
  await type(bo, 'Fine, thanks 👋');
  for (const page of [ann, bo]) await shows(page, 'Ann: Hello Bo, <b>how</b> are you?', 'Bo: Fine, thanks 👋');
  await ann.screenshot({ path: screenshot });

  await bo.close();
  await shows(ann, 'Bo has left');
});

test('who gives no name is turned away', async (t) => {
  const browser = await open(t);
  const page = await browser.newPage();
  await page.goto(url);
  await page.evaluate(() => join(''));
  await page.locator('#log li').filter({ hasText: 'You are not connected.' }).waitFor({ timeout: 60_000 });
});
