const fs = require('fs');
const { flockSync, seekSync } = require('fs-ext');

fs.writeFileSync('note.txt', 'hello fort');
const file = fs.openSync('note.txt', 'r');
const buffer = Buffer.alloc(4);
const position = seekSync(file, 6, 0);
fs.readSync(file, buffer);
console.log(`after ${position}: ${buffer}`);
flockSync(file, 'ex');
console.log('locked');
