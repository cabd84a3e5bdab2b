// Package conformance holds a WebSocket server to RFC 6455 and RFC 7692 over a raw
// connection, case by case.
//
// [Autobahn] lists the 517 cases that the Autobahn test suite (crossbario/autobahn-testsuite)
// counts for servers, under the ids that it gives them, 1.1.1 to 13.7.18; [Additional]
// lists some that it lacks, under ids that begin with F. The server is to give messages
// back as they came: an echo.
//
// # How cases are described
//
// A [Case] says what the client sends, as [Step]s; which messages and pongs are to come
// back, as [Event]s in their order; and how the connection is to end, as an [End].
// [Run] carries a case out and returns a [Result].
//
// Steps are made of frames that may break any rule. Frames of one step travel in one
// write, unless the step cuts them: into one write a frame, or into pieces of so many
// bytes, whatever the frames. A step may also wait: for events that must have come
// before the client goes on, or for the server to give up (fail fast).
//
// Cases with rounds (9.7, 9.8, 12 and 13) send a message, wait for it to come back, and
// go on with the next one: 1000 times. The messages of 12 and 13 are pieces of data that
// [Autobahn] makes itself, of the same sizes and the same kinds as the files of
// Autobahn's suite: JSON, a bitmap, German text, HTML, and bytes that hardly compress.
//
// # Verdicts
//
// Verdicts are Autobahn's. A case is OK if exactly the expected events came and the
// connection ended as it should: by the right end, with the right status, and with the
// server being the first to close the TCP connection. It is non-strict if the server
// does less than RFC 6455 recommends and no harm, such as judging UTF-8 late. What
// Autobahn only informs about (7.1.6, 7.13) is OK if the connection ends.
package conformance
