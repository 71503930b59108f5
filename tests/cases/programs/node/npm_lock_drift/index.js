const ms = require('ms');
const semver = require('semver');

console.log(semver.satisfies('1.4.2', '^1.2.0'), ms('1s'));
