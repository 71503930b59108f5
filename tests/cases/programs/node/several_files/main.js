import { render } from './views/letter.js';
import { bus } from './lib/bus.js';
import { Order } from '#models/order';

let sent = 0;
bus.on('letter', (text) => {
  sent += 1;
  console.log(text);
});
bus.emit('letter', render(new Order('Noor', [['lamp', 10], ['rope', 20]])));
console.log(`sent ${sent}`);
