const { closest } = require('fastest-levenshtein');

async function main() {
  const { stemmer } = await import('stemmer');
  console.log('stems:', ['running', 'runner', 'runs'].map(stemmer).join(' '));
  console.log('closest:', closest('kiten', ['kitten', 'mitten', 'sitting']));
}

main();
