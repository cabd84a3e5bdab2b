package main

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// waitingRoom is a listener that accepts nobody while too many of those it
// accepted have not sent a whole request yet. Who comes meanwhile waits in the
// kernel's queue; who dawdles is out after the handshake's time.
//
// As many may stay after an answer, for a next request that perhaps never comes.
// When one more does, the one that has waited longest goes: a stranger's idle
// connections must not use up the descriptors.
//
// It goes with an http.Server whose ConnState is its state method.
type waitingRoom struct {
	net.Listener
	room   chan struct{}
	closed chan struct{} // closed once the kernel takes nobody any more
	once   sync.Once

	mu      sync.Mutex // guards the rest
	new     map[net.Conn]struct{}
	idle    map[net.Conn]*list.Element // of waiting
	waiting list.List                  // of net.Conn, longest first
}

func newWaitingRoom(l net.Listener, most int) *waitingRoom {
	return &waitingRoom{
		Listener: l, room: make(chan struct{}, most), closed: make(chan struct{}),
		new: make(map[net.Conn]struct{}), idle: make(map[net.Conn]*list.Element),
	}
}

func (w *waitingRoom) Accept() (net.Conn, error) {
	select {
	case w.room <- struct{}{}:
	case <-w.closed:
		return nil, net.ErrClosed
	}
	c, err := w.Listener.Accept()
	if err != nil {
		<-w.room
	}
	return c, err
}

func (w *waitingRoom) Close() error {
	err := w.Listener.Close()
	w.once.Do(func() { close(w.closed) })
	return err
}

// state gives a place back when a connection is no longer new, and closes the
// one that has been idle for longest when too many are.
func (w *waitingRoom) state(c net.Conn, s http.ConnState) {
	if one := w.note(c, s); one != nil {
		one.Close()
	}
}

// note returns the connection that is to be closed, if one is.
func (w *waitingRoom) note(c net.Conn, s http.ConnState) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s == http.StateNew {
		w.new[c] = struct{}{}
		return nil
	}
	if _, ok := w.new[c]; ok {
		delete(w.new, c)
		<-w.room
	}
	if e, ok := w.idle[c]; ok {
		delete(w.idle, c)
		w.waiting.Remove(e)
	}
	if s != http.StateIdle {
		return nil
	}
	w.idle[c] = w.waiting.PushBack(c)
	if len(w.idle) <= cap(w.room) {
		return nil
	}
	one := w.waiting.Remove(w.waiting.Front()).(net.Conn)
	delete(w.idle, one)
	return one
}

// requests are those that are being served. An http.Server does not wait for
// the ones that it gave away, those of WebSocket clients.
type requests struct {
	mu     sync.RWMutex // guards ended
	ended  bool
	served sync.WaitGroup
}

// enter counts a request in, unless all has ended.
func (r *requests) enter() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.ended {
		r.served.Add(1)
	}
	return !r.ended
}

func (r *requests) leave() { r.served.Done() }

// end lets nobody in any more and waits for those who are.
func (r *requests) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.served.Wait()
}
