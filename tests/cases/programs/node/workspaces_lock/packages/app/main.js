import { createRequire } from 'node:module';

import { hours } from '@fort/core';
import colors from 'picocolors';

const { version } = createRequire(import.meta.url)('picocolors/package.json');
console.log(colors.createColors(false).red(hours(2)));
console.log('picocolors', version);
