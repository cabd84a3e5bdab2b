// Package transporttest is the test kit of the doors for clients: what every door
// must do, as one script of conversations ([Run]), and what such tests need, an
// in-memory network ([Listener]) and an authenticator that knows its guests
// ([Guests]).
//
// A door proves itself by implementing [Client] and handing Run a way to open it.
// The script waits on what happens, never on the clock, so it runs as well in a
// [testing/synctest] bubble over pipes as over real sockets.
package transporttest
