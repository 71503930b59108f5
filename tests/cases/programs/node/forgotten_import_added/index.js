const dayjs = require('dayjs');
const ms = require('ms');

console.log(dayjs(0).add(ms('1 day'), 'ms').toISOString());
