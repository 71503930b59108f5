import { once } from 'node:events';
import http from 'node:http';

import axios from 'axios';

const server = http.createServer((request, response) => {
  response.statusCode = request.url === '/tea' ? 418 : 200;
  response.end(request.url === '/tea' ? 'short and stout' : `hello ${request.headers['x-name']}`);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

const api = axios.create({ baseURL: `http://127.0.0.1:${server.address().port}`, timeout: 5000 });
const hello = await api.get('/', { headers: { 'x-name': 'axios' } });
console.log(hello.status, hello.data);
try {
  await api.get('/tea');
} catch (error) {
  console.log(error.response.status, error.response.data);
}
server.closeAllConnections();
server.close();
