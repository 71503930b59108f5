import pLimit from 'p-limit';
import seedrandom from 'seedrandom';

const random = seedrandom('fixed');
const limit = pLimit(2);
const dice = await Promise.all([1, 2, 3].map(() => limit(() => 1 + Math.floor(random() * 6))));
console.log(`rolled ${dice.length} dice, all between 1 and 6: ${dice.every((die) => die >= 1 && die <= 6)}`);
