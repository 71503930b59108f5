const fs = require('node:fs');
const { PNG } = require('pngjs');

const png = new PNG({ width: 16, height: 16 });
for (let y = 0; y < 16; y++) {
  for (let x = 0; x < 16; x++) {
    const inside = (x - 8) ** 2 + (y - 8) ** 2 < 36;
    png.data.set(inside ? [255, 0, 0, 255] : [255, 255, 255, 255], (16 * y + x) * 4);
  }
}
fs.writeFileSync('dot.png', PNG.sync.write(png));

const read = PNG.sync.read(fs.readFileSync('dot.png'));
const at = (x, y) => [...read.data.subarray((16 * y + x) * 4, (16 * y + x) * 4 + 3)].join();
console.log(`${read.width}x${read.height}, centre ${at(8, 8)}, corner ${at(0, 0)}`);
