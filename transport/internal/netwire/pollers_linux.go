package netwire

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fanfare/fanfare/engine"
)

// Bounds of a poller's turn.
const (
	// readsPerTurn is how often one connection may read before the others get
	// their turn.
	readsPerTurn = 2
	// eventsPerWait is how many connections one wait may report.
	eventsPerWait = 128
)

var _ Wire = (*Descriptor)(nil)

// Descriptor is a wire over a non-blocking socket that the Go runtime no longer
// knows of.
//
// The descriptor belongs to the connection's shard: the shard alone writes to
// it and closes it. The poller reads, and takes mu to do so, so that the number
// cannot be closed, and given to a stranger's socket, between looking it up and
// reading from it.
type Descriptor struct {
	// Fixed at birth.
	r      Reader
	poller *poller

	head *[]byte // owned by the shard: to be written before all else; nil once it is
	rest *[]byte // owned by the poller: was read, and not taken; nil for nothing

	mu   sync.Mutex // guards fd, slot and room; held across one non-blocking read
	fd   int32      // -1 once closed; changed by the shard alone
	slot int32      // in the poller; before Start that of its conn, as reserved has it; otherwise -1

	// want is set while a call of Writable is due.
	want atomic.Bool

	room bool // the poller reports when a full socket has room

	// Owned by the poller.
	parked bool // Consume wanted no more
	over   bool // Lost was called
	due    bool // it has its place in the next turn
}

// pollers are the pollers of a Group, one for each processor.
type pollers struct {
	once sync.Once
	next atomic.Uint32
	all  []*poller
}

// Space is the memory of a wire that needs little.
type Space = Descriptor

// pick returns the poller for the next connection.
func (ps *pollers) pick() *poller {
	ps.once.Do(func() {
		for range runtime.GOMAXPROCS(0) {
			ps.all = append(ps.all, &poller{})
		}
	})
	return ps.all[int(ps.next.Add(1))%len(ps.all)]
}

// take makes d a Descriptor of c, or returns nil, with c untouched, where c is
// not a plain TCP connection or there is no descriptor to spare.
func (ps *pollers) take(c net.Conn, head []byte, r Reader, d *Descriptor) Wire {
	switch c := c.(type) {
	case *conn:
		if !d.succeed(c) {
			return nil
		}
	case *net.TCPConn:
		if !d.takeOver(c) {
			return nil
		}
		d.poller, d.slot = ps.pick(), -1
	default:
		return nil
	}
	d.r = r
	if len(head) > 0 {
		d.head = &head
	}
	return d
}

// succeed takes c's descriptor, and its place in its poller.
func (d *Descriptor) succeed(c *conn) bool {
	fd, slot := c.let()
	if fd < 0 {
		return false
	}
	d.poller, d.fd, d.slot, d.room = c.poller, fd, -1, c.polled&unix.EPOLLOUT != 0
	if slot >= 0 {
		d.slot = reserved(slot)
	}
	return true
}

// reserved is how a Descriptor that is not started notes the slot that it will have. It
// is its own inverse.
func reserved(slot int32) int32 { return -2 - slot }

// takeOver takes the socket of tcp out of the runtime's poller.
func (d *Descriptor) takeOver(tcp *net.TCPConn) bool {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil || dupErr != nil {
		return false
	}
	tcp.Close() // the socket lives on: fd refers to it too, outside the runtime's poller
	d.fd = int32(fd)
	return true
}

// Start implements [Wire].
func (d *Descriptor) Start(rest []byte) {
	d.mu.Lock()
	if d.fd < 0 {
		d.mu.Unlock()
		return
	}
	if len(rest) > 0 {
		// Parked until the poller has passed these on: they come first.
		d.keep(rest)
		d.parked = true
	}
	parked, err := d.poller.add(d)
	d.mu.Unlock()
	if err != nil {
		d.r.Lost(err)
		return
	}
	if parked {
		d.Resume()
	}
}

// Resume implements [Wire].
func (d *Descriptor) Resume() { d.poller.wakeFor(d) }

// Offer implements [engine.Sink]: it writes at once.
func (d *Descriptor) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	if d.fd < 0 {
		return 0, 0, errClosed
	}
	if d.head != nil {
		return d.offerAfterHead(b, spans)
	}
	if b.Scattered() {
		return d.offerPieces(b, spans)
	}
	if len(spans) == 1 {
		p := b.Bytes(spans[0])
		wrote, err := d.write(p)
		if wrote == len(p) {
			return spans[0].To - spans[0].From, 0, nil
		}
		n, part = took(b, spans, wrote)
		return n, part, err
	}
	for len(spans) > 0 {
		var iov [8][]byte
		k, total := min(len(iov), len(spans)), 0
		for i, s := range spans[:k] {
			iov[i] = b.Bytes(s)
			total += len(iov[i])
		}
		wrote, err := d.writev(iov[:k], total)
		did, part := took(b, spans[:k], wrote)
		n += did
		if err != nil || wrote < total {
			return n, part, err
		}
		spans = spans[k:]
	}
	return n, 0, nil
}

// maxIovecs is how many pieces go into one system call, of the 1024 that Linux
// takes (IOV_MAX).
const maxIovecs = 64

// offerPieces is Offer for a batch that does not lie side by side.
func (d *Descriptor) offerPieces(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	var room [maxIovecs][]byte
	pieces := room[:0]
	for _, s := range spans {
		pieces = b.Pieces(pieces, s)
	}
	written := 0
	for len(pieces) > 0 {
		k, total := min(maxIovecs, len(pieces)), 0
		for _, p := range pieces[:k] {
			total += len(p)
		}
		wrote, err := d.writev(pieces[:k], total)
		written += wrote
		if err != nil || wrote < total {
			n, part = took(b, spans, written)
			return n, part, err
		}
		pieces = pieces[k:]
	}
	n, part = took(b, spans, written)
	return n, part, nil
}

// OfferBytes implements [engine.Sink].
func (d *Descriptor) OfferBytes(p []byte) (int, error) {
	if d.fd < 0 {
		return 0, errClosed
	}
	if d.head != nil {
		if done, err := d.writeHead(nil); done < 0 || err != nil {
			return 0, err
		}
	}
	return d.write(p)
}

// offerAfterHead is Offer while there is a head, for which spans are copied, unless
// they are large.
func (d *Descriptor) offerAfterHead(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	size := 0
	for _, s := range spans {
		size += b.Size(s)
	}
	if size > busyBuffer {
		if done, err := d.writeHead(nil); done < 0 || err != nil {
			return 0, 0, err
		}
		return d.Offer(b, spans)
	}
	var room [4][]byte
	pieces := room[:0]
	for _, s := range spans {
		pieces = b.Pieces(pieces, s)
	}
	done, err := d.writeHead(pieces)
	if done <= 0 {
		return 0, 0, err
	}
	n, part = took(b, spans, done)
	return n, part, err
}

// writeHead writes what there still is of the head, and pieces behind it. It
// returns how many bytes of pieces were written; -1 if some of the head was not.
func (d *Descriptor) writeHead(pieces [][]byte) (done int, err error) {
	head := *d.head
	all := head // which the wire owns, with the room behind it
	for _, p := range pieces {
		all = append(all, p...)
	}
	n, err := d.write(all)
	if n < len(head) {
		*d.head = head[n:]
		return -1, err
	}
	d.head = nil
	return n - len(head), err
}

// write writes until all is gone or the socket is full. The socket reports room
// once after each time it was full, so a full socket is tried once more after
// want is set: then the report can only come afterwards.
func (d *Descriptor) write(p []byte) (int, error) {
	done, wanted := 0, false
	for done < len(p) {
		n, err := write(d.fd, p[done:])
		if n > 0 {
			done += n
			continue
		}
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && !wanted:
			d.want.Store(true)
			wanted = true
			if err := d.watchRoom(); err != nil {
				return done, err
			}
		case err == unix.EAGAIN:
			return done, nil
		default:
			return done, os.NewSyscallError("write", err)
		}
	}
	if wanted {
		d.want.Store(false)
	}
	return done, nil
}

// watchRoom makes the poller report from now on when the full socket has room. Few
// connections ever need that.
func (d *Descriptor) watchRoom() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room || d.slot < 0 { // Start sees to it
		return nil
	}
	d.room = true
	return d.poller.change(d.fd, d.slot, roomEvents)
}

// writev is write for bytes that do not lie side by side.
func (d *Descriptor) writev(iov [][]byte, total int) (int, error) {
	n, err := unix.Writev(int(d.fd), iov)
	n = max(n, 0)
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return n, os.NewSyscallError("writev", err)
	}
	if n == total {
		return n, nil
	}
	// The rest goes piece by piece: the socket is full, or nearly.
	skip := n
	for _, p := range iov {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		p = p[skip:]
		skip = 0
		k, err := d.write(p)
		n += k
		if err != nil || k < len(p) {
			return n, err
		}
	}
	return n, nil
}

// Held implements [engine.Sink]: what the socket took is the kernel's.
func (d *Descriptor) Held() int { return 0 }

// Close implements [engine.Sink]. What was written is delivered by the kernel if
// polite. Otherwise the far end may be one that does not read, for whom the kernel
// would keep megabytes for minutes: then the connection is reset.
func (d *Descriptor) Close(polite bool) {
	d.mu.Lock()
	fd, slot := d.fd, d.slot
	d.fd, d.slot = -1, -1
	if fd >= 0 {
		if !polite {
			if unsent(fd) > 0 {
				unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			}
		}
		// This is the socket's one descriptor, so closing it takes the socket off the
		// epoll instance, too: the runtime's was closed by take. A process that is being
		// started may have it for a moment more; what is reported until then carries a
		// generation that is over.
		closeSocket(fd)
	}
	d.mu.Unlock()
	switch {
	case slot >= 0:
		d.poller.release(slot)
	case slot != -1:
		d.poller.release(reserved(slot))
	}
}

// read passes on what was kept of the turn before, then reads while there is
// something, within the budget of one turn, and reports whether there may be more. all says not to believe that a short read
// emptied the socket: the end may be waiting behind it.
func (d *Descriptor) read(buf []byte, all bool) (again bool) {
	if d.rest != nil && !d.parked && !d.over {
		if !d.reading() {
			d.rest = nil
			return false
		}
		if d.consume(d.kept(), true); d.rest != nil {
			return !d.parked
		}
	}
	for range readsPerTurn {
		if d.parked || d.over {
			return false
		}
		d.mu.Lock()
		if d.fd < 0 {
			d.mu.Unlock()
			return false
		}
		n, err := read(d.fd, buf)
		d.mu.Unlock()
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err != nil:
			d.lost(os.NewSyscallError("read", err))
			return false
		case n == 0:
			d.lost(io.EOF)
			return false
		}
		d.consume(buf[:n], false)
		if d.rest != nil {
			return !d.parked
		}
		if n < len(buf) && !all {
			return false
		}
	}
	return true
}

// consume passes p on. What is not taken is kept; kept says that p is d.rest.
func (d *Descriptor) consume(p []byte, kept bool) {
	n, more := d.r.Consume(p)
	d.parked = !more
	switch {
	case n == len(p):
		d.rest = nil
	case kept:
		*d.rest = p[n:]
	default:
		d.keep(p[n:])
	}
}

// keep keeps a copy of p.
func (d *Descriptor) keep(p []byte) {
	own := append([]byte(nil), p...)
	d.rest = &own
}

// kept returns what was kept.
func (d *Descriptor) kept() []byte {
	if d.rest == nil {
		return nil
	}
	return *d.rest
}

// unpark goes on with what was kept here, or by the reader itself. It reports
// whether to read on.
func (d *Descriptor) unpark() bool {
	if d.over || !d.reading() {
		return false // Start calls Resume if it has to
	}
	d.parked = false
	d.consume(d.kept(), true)
	return !d.parked
}

// reading reports whether the wire is started and not closed.
func (d *Descriptor) reading() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slot >= 0
}

func (d *Descriptor) lost(err error) {
	d.over = true
	d.r.Lost(err)
}

// poller waits for events of many sockets. Its goroutine is there while it has
// any.
type poller struct {
	mu    sync.Mutex // guards the rest; never held across a callback
	epoll int
	wake  int // an eventfd
	file  *os.File
	slots []*Descriptor   // where an event finds its connection
	conns map[int32]*conn // those that have a slot, and no Descriptor in it yet
	gens  []uint32        // how often each slot was given back
	free  []int32
	count int
	ready []*Descriptor // Resume was called
}

// An event that was on its way when its connection closed carries an older
// generation of its slot: nothing is looked up by descriptor number, which may be
// another's by then.

// wakeSlot is the slot number of the eventfd.
const wakeSlot = -1

// What an epoll instance reports of a connection, once for each time that it becomes so.
const (
	readEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	roomEvents = readEvents | unix.EPOLLOUT
)

// add registers d and starts the loop if this is the first. d.mu is held. It reports
// whether d is parked, and has to be resumed.
func (p *poller) add(d *Descriptor) (parked bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.slot != -1 {
		return p.inherit(d)
	}
	events := uint32(readEvents)
	if d.want.Load() {
		events, d.room = roomEvents, true
	}
	i, err := p.register(d.fd, events)
	if err == nil {
		p.slots[i], d.slot = d, i
	}
	return d.parked, err
}

// inherit gives d the slot that its conn has. p.mu and d.mu are held.
func (p *poller) inherit(d *Descriptor) (parked bool, err error) {
	i := reserved(d.slot)
	if d.want.Load() && !d.room {
		if err := p.changeLocked(d.fd, i, roomEvents); err != nil {
			return false, err
		}
		d.room = true
	}
	c := p.conns[i]
	delete(p.conns, i)
	c.mu.Lock()
	if c.in.ready {
		d.parked = true // the conn may have been told of what has not been read
	}
	c.mu.Unlock()
	p.slots[i], d.slot = d, i
	return d.parked, nil
}

// watch registers c for events, too.
func (p *poller) watch(c *conn, events uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	events |= readEvents | c.polled
	if c.slot >= 0 {
		c.polled = events
		return p.changeLocked(c.fd, c.slot, events)
	}
	i, err := p.register(c.fd, events)
	if err != nil {
		return err
	}
	if p.conns == nil {
		p.conns = make(map[int32]*conn)
	}
	p.conns[i], c.slot, c.polled = c, i, events
	return nil
}

// register gives fd a slot, whose owner the caller sets. p.mu is held.
func (p *poller) register(fd int32, events uint32) (i int32, err error) {
	if p.file == nil {
		if err := p.open(); err != nil {
			return 0, err
		}
	}
	if n := len(p.free); n > 0 {
		i, p.free = p.free[n-1], p.free[:n-1]
	} else {
		i = int32(len(p.slots))
		p.slots, p.gens = append(p.slots, nil), append(p.gens, 0)
	}
	ev := unix.EpollEvent{Events: events, Fd: i, Pad: int32(p.gens[i])}
	if err := epollAdd(p.epoll, fd, &ev); err != nil {
		p.free = append(p.free, i)
		if p.count == 0 {
			p.kick()
		}
		return 0, os.NewSyscallError("epoll_ctl", err)
	}
	p.count++
	return i, nil
}

// change makes the epoll instance report events of the connection in slot i.
func (p *poller) change(fd, i int32, events uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changeLocked(fd, i, events)
}

// changeLocked is change with p.mu held.
func (p *poller) changeLocked(fd, i int32, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: i, Pad: int32(p.gens[i])}
	return os.NewSyscallError("epoll_ctl", epollModify(p.epoll, fd, &ev))
}

// open makes the epoll instance and starts the loop. p.mu is held.
func (p *poller) open() error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &ev)
	}
	if err == nil {
		// A non-blocking descriptor is one that the runtime's poller accepts.
		err = unix.SetNonblock(epoll, true)
	}
	if err != nil {
		unix.Close(epoll)
		if wake >= 0 {
			unix.Close(wake)
		}
		return os.NewSyscallError("eventfd", err)
	}
	p.epoll, p.wake = epoll, wake
	p.file = os.NewFile(uintptr(epoll), "epoll")
	raw, err := p.file.SyscallConn()
	if err == nil {
		err = p.file.SetDeadline(time.Time{}) // fails for what the runtime does not poll
	}
	if err != nil {
		p.close()
		return err
	}
	go p.run(raw)
	return nil
}

func (p *poller) close() {
	p.file.Close()
	unix.Close(p.wake)
	p.file = nil
}

func (p *poller) kick() {
	one := [8]byte{0: 1}
	unix.Write(p.wake, one[:])
}

// release gives a slot back.
func (p *poller) release(i int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[i] = nil
	delete(p.conns, i)
	p.gens[i]++
	p.free = append(p.free, i)
	p.count--
	if p.count == 0 {
		p.kick() // the loop ends, unless another comes first
	}
}

// wakeFor puts d into the loop's next turn.
func (p *poller) wakeFor(d *Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return // d was closed, being no longer counted
	}
	p.ready = append(p.ready, d)
	if len(p.ready) == 1 {
		p.kick()
	}
}

// run is the loop. It parks in the runtime's poller, which watches the epoll
// descriptor: a thread blocked in epoll_wait would hold a processor back from
// the shards until the runtime noticed.
func (p *poller) run(raw syscall.RawConn) {
	var (
		lent   = buffers.Get().(*[]byte) // all connections of a poller share it
		buf    = *lent
		events [eventsPerWait]unix.EpollEvent
		found  [eventsPerWait]*Descriptor
		again  []*Descriptor // had their turn and may have more
		ready  []*Descriptor
		n      int
	)
	defer buffers.Put(lent)
	wait := func(fd uintptr) bool {
		var err error
		n, err = epollPoll(int(fd), events[:])
		if err != nil {
			n = 0
			return err == unix.EINTR
		}
		return n > 0 || len(again) > 0
	}
	for {
		if err := raw.Read(wait); err != nil {
			n = 0 // cannot happen before close, which is ours
		}
		p.mu.Lock()
		if p.count == 0 {
			p.close()
			p.ready, p.slots, p.gens, p.free, p.conns = nil, nil, nil, nil, nil
			p.mu.Unlock()
			return
		}
		for i, e := range events[:n] {
			found[i] = nil
			if e.Fd == wakeSlot {
				drain(p.wake)
			} else if p.gens[e.Fd] == uint32(e.Pad) {
				if found[i] = p.slots[e.Fd]; found[i] == nil {
					p.conns[e.Fd].event(e.Events)
				}
			}
		}
		ready, p.ready = p.ready, ready[:0]
		p.mu.Unlock()

		turn := again
		again = nil
		// One place in the next turn each: a client that sends without end would
		// otherwise get another one with every event.
		keep := func(d *Descriptor) {
			if !d.due {
				d.due = true
				again = append(again, d)
			}
		}
		for _, d := range turn {
			d.due = false
		}
		for _, d := range turn {
			if d.read(buf, true) {
				keep(d)
			}
		}
		for i, d := range found[:n] {
			if d != nil && d.handle(events[i].Events, buf) {
				keep(d)
			}
		}
		for i, d := range ready {
			ready[i] = nil
			if d.unpark() && d.read(buf, true) {
				keep(d)
			}
		}
		clear(found[:n])
	}
}

// handle acts on what the kernel said about d and reports whether d wants
// another turn.
func (d *Descriptor) handle(events uint32, buf []byte) (again bool) {
	const broken = unix.EPOLLERR | unix.EPOLLHUP
	if events&(unix.EPOLLOUT|broken) != 0 && d.want.CompareAndSwap(true, false) {
		d.r.Writable()
	}
	if d.parked && events&broken != 0 && !d.over {
		d.lost(unix.ECONNRESET) // what waits unread has nobody to answer to
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|broken) != 0 && !d.due {
		return d.read(buf, events&(unix.EPOLLRDHUP|broken) != 0)
	}
	return false
}

func drain(fd int) {
	var b [8]byte
	unix.Read(fd, b[:])
}
