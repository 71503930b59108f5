const WebSocket = require('ws');

const server = new WebSocket.Server({ port: 0, host: '127.0.0.1' }, () => {
  const client = new WebSocket(`ws://127.0.0.1:${server.address().port}`);
  client.on('open', () => client.send('salaam'));
  client.on('message', (data) => {
    console.log(data.toString());
    client.close(1000);
  });
  client.on('close', (code) => {
    console.log('closed', code);
    server.close();
  });
});

server.on('connection', (socket) => {
  socket.on('message', (data) => socket.send(`echo: ${data}`));
});
