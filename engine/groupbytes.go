package engine

// What groups hold in memory is bounded twice: the names of one connection's groups,
// with the options of its memberships, and an estimate of all groups and memberships
// of the engine, in which the name of a group counts once.

const (
	// groupOverhead is the size of a group without its name, and of its place in a table.
	groupOverhead = 256
	// membershipOverhead is the size of a membership without its options, and of the
	// entries that refer to it.
	membershipOverhead = 128
)

// checkGroupBytes says why c cannot have n more bytes of names and options. c.mu is held.
func (c *Conn) checkGroupBytes(n int) error {
	if most := c.hub.engine.limits.GroupBytesPerConnection; int(c.groupBytes)+n > most {
		return Errorf(CodeTooLarge, "limits.groupBytesPerConnection",
			"The names of the connection's groups have %d bytes and would have %d; limits.groupBytesPerConnection is %d.",
			c.groupBytes, int(c.groupBytes)+n, most)
	}
	return nil
}

// takeGroupBytes counts n bytes of a membership, unless the engine's groups are at
// their bound.
func (e *Engine) takeGroupBytes(n int) error {
	if before := e.counters.groupBytes.Add(int64(n)) - int64(n); before >= int64(e.limits.TotalGroupBytes) {
		e.giveGroupBytes(n)
		return e.groupsFull(before)
	}
	return nil
}

func (e *Engine) giveGroupBytes(n int) { e.counters.groupBytes.Add(int64(-n)) }

func (e *Engine) groupsFull(used int64) error {
	return Errorf(CodeUnavailable, "limits.totalGroupBytes",
		"The groups of this node hold %d bytes; limits.totalGroupBytes is %d. Try again when there are fewer.", used, e.limits.TotalGroupBytes)
}

// checkGroups says why a client cannot begin in groups.
func (e *Engine) checkGroups(groups []GroupName) error {
	if len(groups) == 0 {
		return nil
	}
	bytes := 0
	for _, g := range groups {
		bytes += len(g)
	}
	if most := e.limits.GroupBytesPerConnection; bytes > most {
		return Errorf(CodeForbidden, "limits.groupBytesPerConnection",
			"The names of the groups that the client is to begin in have %d bytes; limits.groupBytesPerConnection is %d.", bytes, most)
	}
	if used := e.counters.groupBytes.Load(); used >= int64(e.limits.TotalGroupBytes) {
		return e.groupsFull(used)
	}
	return nil
}

// bytes is what m counts for in the engine's bound.
func (m *membership) bytes() int { return membershipOverhead + sizeOf(m.opaque()) }
