const crypto = require('crypto');
const jwt = require('jsonwebtoken');
const bcrypt = require('bcryptjs');

const secret = crypto.createHash('sha256').update('fixed').digest('hex');
const token = jwt.sign({ sub: 'todarmal' }, secret, { noTimestamp: true });
console.log('sub:', jwt.verify(token, secret).sub);
try {
  jwt.verify(token, 'another');
} catch (error) {
  console.log('rejected:', error.message);
}
const hash = bcrypt.hashSync('open sesame', 4);
console.log('password:', bcrypt.compareSync('open sesame', hash), bcrypt.compareSync('open', hash));
