import { Chalk } from 'chalk';
import stripAnsi from 'strip-ansi';

const chalk = new Chalk({ level: 1 });
const text = chalk.red('red');
console.log(text);
console.log('plain:', stripAnsi(text));
