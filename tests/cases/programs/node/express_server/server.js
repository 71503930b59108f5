const express = require('express');

const app = express();
const users = new Map();
app.use(express.json());

app.post('/users', (req, res) => {
  const user = { id: users.size + 1, ...req.body };
  users.set(user.id, user);
  res.status(201).json(user);
});

app.get('/users/:id', (req, res) => {
  const user = users.get(Number(req.params.id));
  if (!user) return res.status(404).json({ error: 'no such user' });
  res.json(user);
});

const server = app.listen(0, '127.0.0.1', async () => {
  const base = `http://127.0.0.1:${server.address().port}`;
  const created = await fetch(`${base}/users`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'Meera' }),
  });
  console.log(created.status, JSON.stringify(await created.json()));
  const missing = await fetch(`${base}/users/9`);
  console.log(missing.status, JSON.stringify(await missing.json()));
  server.closeAllConnections();
  server.close(() => console.log('closed'));
});
