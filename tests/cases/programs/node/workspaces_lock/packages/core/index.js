import ms from 'ms';

export const hours = (count) => `${count} hours = ${ms(`${count} hours`)}`;
