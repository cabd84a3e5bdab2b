package engine

// maxAcks is how many successful ack ids a connection remembers.
const maxAcks = 1000

// ackSet remembers the last maxAcks ids that succeeded, oldest first. Clients
// count upwards, so runs of consecutive ids take one range.
type ackSet struct {
	ranges []ackRange
	count  int
}

type ackRange struct{ first, last AckID }

func (s *ackSet) has(id AckID) bool {
	for i := len(s.ranges) - 1; i >= 0; i-- {
		if r := s.ranges[i]; r.first <= id && id <= r.last {
			return true
		}
	}
	return false
}

// add notes id, which the set does not hold yet.
func (s *ackSet) add(id AckID) {
	if n := len(s.ranges); n > 0 && id != 0 && s.ranges[n-1].last == id-1 {
		s.ranges[n-1].last = id
	} else {
		s.ranges = append(s.ranges, ackRange{id, id})
	}
	if s.count++; s.count <= maxAcks {
		return
	}
	s.count--
	if s.ranges[0].first == s.ranges[0].last {
		s.ranges = append(s.ranges[:0], s.ranges[1:]...)
	} else {
		s.ranges[0].first++
	}
}
