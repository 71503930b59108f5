const { DateTime } = require('luxon');
const ms = require('ms');

const moment = DateTime.fromISO('2024-02-29T22:00:00Z', { zone: 'utc' });
console.log(moment.setZone('Asia/Kolkata').toISO());
console.log('2 days =', ms('2 days'));
