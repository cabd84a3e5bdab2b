// A URL to connect with. In an application, this is where people log in.
const { service } = require('../hub');

module.exports = async (_, req) => {
  const { url } = await service.getClientAccessToken({ userId: req.query.id });
  return { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ url }) };
};
