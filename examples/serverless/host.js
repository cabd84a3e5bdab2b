// Stands in for Azure's host of functions, so that these run with nothing but Node: each
// folder with a function.json is a function at /api/<folder>, with HTTP in and out.
const { existsSync, readdirSync, readFileSync } = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { text } = require('node:stream/consumers');

const functions = new Map();
for (const name of readdirSync(__dirname)) {
  const file = path.join(__dirname, name, 'function.json');
  if (!existsSync(file)) continue;
  const trigger = JSON.parse(readFileSync(file)).bindings.find((b) => b.type === 'httpTrigger');
  const methods = trigger.methods.map((m) => m.toUpperCase());
  functions.set(`/api/${name}`, { methods, run: require(path.join(__dirname, name)) });
}

const server = http.createServer(async (request, response) => {
  const { method, headers } = request;
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const called = functions.get(pathname);
  if (!called?.methods.includes(method)) return response.writeHead(404).end();
  try {
    const body = await text(request);
    const answer = await called.run({}, { method, headers, query: Object.fromEntries(searchParams), body });
    response.writeHead(answer.status ?? 200, answer.headers).end(answer.body);
  } catch (err) {
    console.error(`${pathname}: ${err.message}`);
    response.writeHead(500).end();
  }
});
server.listen(process.env.PORT ?? 7071, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
