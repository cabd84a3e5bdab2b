// Before its first event the node asks whether it may call us at all: it puts "validate"
// where the names of events stand.
module.exports = async (_, req) => ({
  headers: { 'WebHook-Allowed-Origin': req.headers['webhook-request-origin'] ?? '' },
});
