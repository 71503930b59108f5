export function discounted(price, percent) {
  if (percent < 0 || percent > 100) throw new RangeError(`percent out of range: ${percent}`);
  return Math.round(price * (100 - percent)) / 100;
}
