// Somebody wants to connect, and waits for our answer.
const { onEvent, say } = require('../hub');

module.exports = onEvent(async (user) => {
  if (!user) return { status: 401 }; // a chat needs names
  await say('', `${user} is coming`);
});
