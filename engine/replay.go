package engine

// replay is what a numbered connection has been sent and has not acknowledged,
// in order, for the case that its wire is lost. Owned by the shard.
type replay struct {
	queue []owed
	head  int
	bytes int
	kept  SequenceID // the highest number that was ever kept here
}

func (r *replay) len() int { return len(r.queue) - r.head }

// keep adds a delivery that a sink has taken, in whole or in part.
func (r *replay) keep(o owed) {
	r.kept = o.seq
	r.bytes += o.message.size()
	r.queue = append(r.queue, o)
}

// ackUpTo forgets every delivery up to seq.
func (r *replay) ackUpTo(seq SequenceID) {
	for r.head < len(r.queue) && r.queue[r.head].seq <= seq {
		r.forget(r.head)
		r.head++
	}
	r.tidy()
}

// ackOne forgets the oldest delivery that match is true for. Its place is given
// up when all before it are.
func (r *replay) ackOne(match func(SequenceID) bool) {
	for i := r.head; i < len(r.queue); i++ {
		if r.queue[i].message != nil && match(r.queue[i].seq) {
			r.forget(i)
			break
		}
	}
	for r.head < len(r.queue) && r.queue[r.head].message == nil {
		r.head++
	}
	r.tidy()
}

func (r *replay) forget(i int) {
	if o := &r.queue[i]; o.message != nil {
		r.bytes -= o.message.size()
		o.message, o.member = nil, nil
	}
}

// tidy uses the queue's memory again, and gives back that of a burst.
func (r *replay) tidy() {
	n := r.len()
	switch {
	case n == 0 && cap(r.queue) > 64:
		r.queue, r.head = nil, 0
	case n == 0:
		r.queue, r.head = r.queue[:0], 0
	case r.head > 32 && r.head > len(r.queue)/2:
		r.queue = append(r.queue[:0], r.queue[r.head:]...)
		clear(r.queue[n:cap(r.queue)])
		r.head = 0
	}
}
