const _ = require('lodash');
const dayjs = require('dayjs');
const utc = require('dayjs/plugin/utc');

dayjs.extend(utc);

const orders = [
  { kind: 'fruit', price: 10 },
  { kind: 'tool', price: 12 },
  { kind: 'fruit', price: 20 },
];

const start = dayjs.utc('2024-02-28');
console.log(`${start.format()} -> ${start.add(1, 'day').format('YYYY-MM-DD')}`);
const totals = _.mapValues(_.groupBy(orders, 'kind'), (group) => _.sumBy(group, 'price'));
console.log(JSON.stringify(totals));
console.log(_.startCase('kabul_gate'));
