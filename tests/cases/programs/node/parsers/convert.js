const fs = require('fs');
const path = require('path');

const cheerio = require('cheerio');
const { XMLParser } = require('fast-xml-parser');
const yaml = require('js-yaml');
const { marked } = require('marked');
const toml = require('toml');

console.log('yaml:', JSON.stringify(yaml.load('name: qila\nwalls: [1, 2]')));
console.log('xml:', new XMLParser().parse('<book><page>1</page><page>2</page></book>').book.page.length);
console.log('toml:', toml.parse('[gate]\nwidth = 7').gate.width);
console.log('markdown:', marked.parse('# Notes\n').trim());
const $ = cheerio.load(fs.readFileSync(path.join(__dirname, 'page.html'), 'utf8'));
console.log(`html: ${$('title').text()}, ${$('a[href]').length} links`);
