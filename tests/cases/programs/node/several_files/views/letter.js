import { readFileSync } from 'node:fs';

import Handlebars from 'handlebars';

const source = readFileSync(new URL('./letter.hbs', import.meta.url), 'utf8');
const template = Handlebars.compile(source);

export const render = (order) =>
  template({ customer: order.customer, count: order.items.length, total: order.total }).trim();
