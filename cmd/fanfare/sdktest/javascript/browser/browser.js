'use strict';
// A headless Chromium from the system's packages.

const { chromium } = require('playwright-core');

// The sandbox needs a user other than root; the rest keeps the browser from
// asking its maker's hosts for things.
const args = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

async function open(t) {
  const browser = await chromium.launch({ executablePath: process.env.FANFARE_CHROMIUM, headless: true, args });
  t.after(() => browser.close());
  return browser;
}

module.exports = { open };
