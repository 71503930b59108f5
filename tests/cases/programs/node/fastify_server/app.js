import Fastify from 'fastify';

const app = Fastify({ logger: false });

app.get('/add', {
  schema: {
    querystring: {
      type: 'object',
      required: ['a', 'b'],
      properties: { a: { type: 'number' }, b: { type: 'number' } },
    },
  },
  handler: async (request) => ({ sum: request.query.a + request.query.b }),
});

const address = await app.listen({ port: 0, host: '127.0.0.1' });
const good = await fetch(`${address}/add?a=2&b=3`);
console.log(good.status, await good.text());
const bad = await fetch(`${address}/add?a=2&b=x`);
console.log(bad.status, (await bad.json()).message);
await app.close();
