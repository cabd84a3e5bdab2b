package engine

// maxAcks is how many successful ack ids a connection remembers.
const maxAcks = 1000

// ackSet remembers the last maxAcks ids that succeeded. Clients count upwards,
// so the newest run of consecutive ids is mostly all there is.
type ackSet struct {
	last  AckID  // of the newest run; valid if count > 0
	run   uint16 // how many ids the newest run has
	count uint16
	older *[]ackRange // oldest first; nil if there are none
}

type ackRange struct{ first, last AckID }

func (r ackRange) has(id AckID) bool { return r.first <= id && id <= r.last }

// newest returns the newest run of consecutive ids.
func (s *ackSet) newest() ackRange { return ackRange{s.last - AckID(s.run) + 1, s.last} }

func (s *ackSet) has(id AckID) bool {
	if s.count == 0 {
		return false
	}
	if s.newest().has(id) {
		return true
	}
	if s.older != nil {
		for _, r := range *s.older {
			if r.has(id) {
				return true
			}
		}
	}
	return false
}

// add notes id, which the set does not hold yet.
func (s *ackSet) add(id AckID) {
	switch {
	case s.count == 0:
		s.last, s.run = id, 1
	case id != 0 && s.last == id-1:
		s.last = id
		s.run++
	default:
		if s.older == nil {
			s.older = &[]ackRange{}
		}
		*s.older = append(*s.older, s.newest())
		s.last, s.run = id, 1
	}
	if s.count++; s.count > maxAcks {
		s.forget()
	}
}

// forget drops the oldest id.
func (s *ackSet) forget() {
	s.count--
	if s.older == nil {
		s.run--
		return
	}
	if oldest := &(*s.older)[0]; oldest.first < oldest.last {
		oldest.first++
		return
	}
	if *s.older = append((*s.older)[:0], (*s.older)[1:]...); len(*s.older) == 0 {
		s.older = nil
	}
}

// export returns the ids as plain data.
func (s *ackSet) export() []AckRange {
	var list []AckRange
	if s.older != nil {
		for _, r := range *s.older {
			list = append(list, AckRange{r.first, r.last})
		}
	}
	if s.count > 0 {
		r := s.newest()
		list = append(list, AckRange{r.first, r.last})
	}
	return list
}

// adopt notes ids that export returned.
func (s *ackSet) adopt(list []AckRange) {
	for _, r := range list {
		if r.Last-r.First >= maxAcks {
			r.First = r.Last - maxAcks + 1
		}
		for id := r.First; ; id++ {
			s.add(id)
			if id == r.Last {
				break
			}
		}
	}
}
