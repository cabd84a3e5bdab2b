// Command bench measures a Fanfare node from outside: over real sockets, from
// another process, with every delivery checked.
//
//	go run ./bench all
//	go run ./bench fanout --members 1000 --payload 128 --rate saturated
//
// The figures to trust are ratios. Server and load share the machine, so the
// primary figure is the server process's own CPU time per million deliveries
// (cpu-s/M; 1 means one microsecond each), and beside each measurement runs a
// bare loop that does nothing but write the same frames to as many sockets:
// the floor. Both are measured in the same round, and the medians of several
// rounds are compared.
//
// A run is exact or it has no figure: each subscriber must get each message
// once, in order and intact, which sequence numbers and a checksum inside the
// payload show. A run that is not exact says what was wrong and ends with
// status 1.
//
// Results are lines that benchstat reads. It runs on Linux only: the load
// generator reads its thousands of sockets with epoll.
package main
