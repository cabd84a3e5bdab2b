// Package enginetest is the engine's public test kit: small real things that
// fill its seams, and the behaviour that every filling must show.
//
//   - [NewCluster] makes in-memory backplanes, and [TestBackplane] is the
//     behaviour every [engine.Backplane] must show.
//   - [Handler] is an [engine.EventHandler] that records what it is told.
//   - [Wire] is a sink with a far end in the same program: bytes in, messages
//     and a configurable appetite out.
//   - [Lines] is a toy protocol, one line a message, that uses every general
//     hook: own prefixes, sequence ids, options on memberships, attributes on
//     messages.
package enginetest
