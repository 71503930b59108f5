const camelcase = require('camelcase');
const pluralize = require('pluralize');

console.log(camelcase('east-gate'), pluralize('gate', 2));
