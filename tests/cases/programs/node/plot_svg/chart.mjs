import { writeFileSync } from 'fs';

import { scaleLinear } from 'd3-scale';
import { line } from 'd3-shape';

const values = [0, 5, 10];
const x = scaleLinear([0, 2], [0, 100]);
const y = scaleLinear([0, 10], [100, 0]);
const path = line((_, index) => x(index), y)(values);
const ticks = y.ticks(2);
writeFileSync('chart.svg', `<svg xmlns="http://www.w3.org/2000/svg"><path d="${path}"/></svg>`);
console.log(path);
console.log(`chart.svg: ${ticks.length} ticks`);
