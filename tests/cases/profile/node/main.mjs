import { execFileSync } from 'node:child_process';
import dns from 'node:dns/promises';
import { watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';

if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url));
  const answer = await new Promise((resolve) => worker.on('message', resolve));
  watch('.').close();
  const server = http.createServer((_, reply) => reply.end('served'));
  await new Promise((resolve) => server.listen(0, resolve));
  const text = await (await fetch(`http://localhost:${server.address().port}/`)).text();
  server.close();
  const refused = await dns.resolve4('qila.example').catch((error) => error.code);
  const child = execFileSync('echo', ['child']).toString().trim();
  const size = (await readFile('main.mjs')).length;
  console.log(answer, text, Object.keys(os.networkInterfaces()).join(), refused, child, size > 9);
} else {
  parentPort.postMessage(21 * 2);
}
