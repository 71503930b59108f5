import { setTimeout as sleep } from 'node:timers/promises';

import pMap from 'p-map';
import pRetry from 'p-retry';

let running = 0;
let most = 0;
const numbers = Array.from({ length: 20 }, (_, index) => index);
const results = await pMap(
  numbers,
  async (number) => {
    running += 1;
    most = Math.max(most, running);
    await sleep(5);
    running -= 1;
    return number * 2;
  },
  { concurrency: 4 },
);
console.log(`${results.length} results, sum ${results.reduce((a, b) => a + b)}, at most 4 at once: ${most <= 4}`);

let attempts = 0;
const flaky = async () => {
  attempts += 1;
  if (attempts < 3) throw new Error('not yet');
  return 'third time lucky';
};
console.log(await pRetry(flaky, { retries: 5, minTimeout: 1 }));
