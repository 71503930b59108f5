const semver = require('semver');
const { version } = require('semver/package.json');

console.log(`semver ${version} says ${semver.satisfies('1.4.2', '^1.2.0')}`);
