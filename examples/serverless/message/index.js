// Somebody has said something.
const { onEvent, say } = require('../hub');

module.exports = onEvent((user, text) => say(user, text));
