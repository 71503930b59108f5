import { describe, expect, it } from 'vitest';

import { Stack } from './stack';

describe('Stack', () => {
  it('returns the last one first', () => {
    expect(new Stack<number>().push(1).push(2).pop()).toBe(2);
  });

  it('is empty at first', () => {
    expect(new Stack().pop()).toBeUndefined();
  });
});
