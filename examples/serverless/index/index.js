// The page.
const { readFile } = require('node:fs/promises');
const path = require('node:path');

module.exports = async () => ({
  headers: { 'Content-Type': 'text/html; charset=utf-8' },
  body: await readFile(path.join(__dirname, 'index.html'), 'utf8'),
});
