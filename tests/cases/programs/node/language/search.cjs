const { closest, distance } = require('fastest-levenshtein');

async function main() {
  const { capitalCase, snakeCase } = await import('change-case');
  console.log('names:', capitalCase('kabulGate'), snakeCase('kabulGate'));
  console.log('closest:', closest('kiten', ['kitten', 'mitten', 'sitting']), distance('kiten', 'kitten'));
}

main();
