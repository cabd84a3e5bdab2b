// Package transporttest is the test kit of the doors for clients: what every door
// must do, as one script of conversations ([Run]) that is played in each
// subprotocol, and what such tests need: an in-memory network ([Listener]), an
// authenticator that knows its guests ([Guests]), and time that can be moved on
// ([Clock]).
//
// A door proves itself by implementing [Client] and handing Run a way to open it.
// The script waits on what happens, never on the system's clock, so it runs as well
// in a [testing/synctest] bubble over pipes as over real sockets.
package transporttest
