const options = require('minimist')(process.argv.slice(2));

const text = `namaste ${process.env.WHERE}`;
console.log(options.loud ? text.toUpperCase() : text);
