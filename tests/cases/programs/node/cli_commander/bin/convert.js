#!/usr/bin/env node
'use strict';

const { program } = require('commander');

program
  .argument('<degrees...>')
  .requiredOption('--to <unit>')
  .option('--strict')
  .allowUnknownOption()
  .parse();

const { to, strict } = program.opts();
for (const text of program.args) {
  const degrees = Number(text);
  if (strict && degrees < -273.15) {
    console.error(`${text} is below absolute zero`);
    process.exitCode = 2;
    continue;
  }
  console.log(`${degrees}C = ${to === 'F' ? degrees * 1.8 + 32 : degrees + 273.15}${to}`);
}
