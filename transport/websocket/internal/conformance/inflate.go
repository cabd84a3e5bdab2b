package conformance

import (
	"errors"
	"fmt"
)

// errTruncated is a stream that ends inside a block.
var errTruncated = errors.New("the stream ends inside a block")

// inflate decompresses p, a message's payload, behind before, which it may refer to. It
// exists because no other inflater says how far back a stream refers: a distance of
// more than window is an error. back is the farthest distance to before the message; 0
// for a message that stands alone. What it returns is valid until the next call.
func (d *inflater) inflate(p, before []byte, window int) (out []byte, back int, err error) {
	d.in = append(append(d.in[:0], p...), 0x00, 0x00, 0xff, 0xff)
	d.at, d.bits, d.count = 0, 0, 0
	d.out = append(d.out[:0], before...)
	d.window, d.start, d.back = window, len(before), 0
	for {
		last, err := d.block()
		if err != nil {
			return nil, 0, err
		}
		if last {
			d.at -= int(d.count / 8)
			d.bits, d.count = 0, 0 // the next block begins at the next byte
		}
		if d.at == len(d.in) && d.count < 8 {
			return d.out[d.start:], d.back, nil
		}
	}
}

// inflater holds what inflate works with.
type inflater struct {
	in    []byte
	at    int
	bits  uint64
	count uint

	out    []byte
	window int
	start  int // of the message in out
	back   int

	literals, distances code
}

// need sees to it that n bits are there, as far as the input goes.
func (d *inflater) need(n uint) bool {
	for d.count < n {
		if d.at == len(d.in) {
			return false
		}
		d.bits |= uint64(d.in[d.at]) << d.count
		d.at++
		d.count += 8
	}
	return true
}

// take returns the next n bits.
func (d *inflater) take(n uint) (int, error) {
	if !d.need(n) {
		return 0, errTruncated
	}
	v := int(d.bits & (1<<n - 1))
	d.bits >>= n
	d.count -= n
	return v, nil
}

// block reads one block (RFC 1951 section 3.2.3).
func (d *inflater) block() (last bool, err error) {
	head, err := d.take(3)
	if err != nil {
		return false, err
	}
	last = head&1 != 0
	switch head >> 1 {
	case 0:
		return last, d.stored()
	case 1:
		d.literals.build(fixedLiterals[:])
		d.distances.build(fixedDistances[:])
	case 2:
		if err := d.codes(); err != nil {
			return last, err
		}
	default:
		return last, errors.New("a block of an unknown type")
	}
	return last, d.compressed()
}

func (d *inflater) stored() error {
	skip := d.count % 8
	d.bits >>= skip
	d.count -= skip
	length, err := d.take(16)
	if err != nil {
		return err
	}
	check, err := d.take(16)
	if err != nil {
		return err
	}
	if length^check != 0xffff {
		return errors.New("a stored block whose lengths differ")
	}
	for ; length > 0 && d.count > 0; length-- {
		b, _ := d.take(8)
		d.out = append(d.out, byte(b))
	}
	if len(d.in)-d.at < length {
		return errTruncated
	}
	d.out = append(d.out, d.in[d.at:d.at+length]...)
	d.at += length
	return nil
}

var codeOrder = [...]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// codes reads the codes of a block that brings its own (section 3.2.7).
func (d *inflater) codes() error {
	head, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances, lengths := head&31+257, head>>5&31+1, head>>10+4
	var sizes [320]uint8
	for _, i := range codeOrder[:lengths] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		sizes[i] = uint8(n)
	}
	d.literals.build(sizes[:19])
	clear(sizes[:19])
	for i := 0; i < literals+distances; {
		symbol, err := d.symbol(&d.literals)
		if err != nil {
			return err
		}
		size, repeat := uint8(symbol), 1
		switch symbol {
		case 16:
			if i == 0 {
				return errors.New("a length is repeated before there is one")
			}
			size = sizes[i-1]
			repeat, err = d.take(2)
			repeat += 3
		case 17:
			size = 0
			repeat, err = d.take(3)
			repeat += 3
		case 18:
			size = 0
			repeat, err = d.take(7)
			repeat += 11
		}
		if err != nil {
			return err
		}
		if i+repeat > literals+distances {
			return errors.New("too many lengths of codes")
		}
		for range repeat {
			sizes[i] = size
			i++
		}
	}
	d.literals.build(sizes[:literals])
	d.distances.build(sizes[literals : literals+distances])
	return nil
}

// The lengths and distances of section 3.2.5.
var (
	lengthBase  = [...]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [...]uint{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}

	fixedLiterals  [288]uint8
	fixedDistances [30]uint8
)

func init() {
	for i := range fixedLiterals {
		switch {
		case i < 144:
			fixedLiterals[i] = 8
		case i < 256:
			fixedLiterals[i] = 9
		case i < 280:
			fixedLiterals[i] = 7
		default:
			fixedLiterals[i] = 8
		}
	}
	for i := range fixedDistances {
		fixedDistances[i] = 5
	}
}

// compressed reads the symbols of a block.
func (d *inflater) compressed() error {
	for {
		symbol, err := d.symbol(&d.literals)
		switch {
		case err != nil:
			return err
		case symbol < 256:
			d.out = append(d.out, byte(symbol))
			continue
		case symbol == 256:
			return nil
		case symbol-257 >= len(lengthBase):
			return errors.New("an unknown length")
		}
		more, err := d.take(lengthExtra[symbol-257])
		if err != nil {
			return err
		}
		length := lengthBase[symbol-257] + more
		distance, err := d.distance()
		if err != nil {
			return err
		}
		if err := d.copy(length, distance); err != nil {
			return err
		}
	}
}

func (d *inflater) distance() (int, error) {
	symbol, err := d.symbol(&d.distances)
	if err != nil {
		return 0, err
	}
	if symbol > 29 {
		return 0, errors.New("an unknown distance")
	}
	if symbol < 2 {
		return symbol + 1, nil
	}
	extra := uint(symbol/2 - 1)
	more, err := d.take(extra)
	return (2+symbol&1)<<extra + 1 + more, err
}

func (d *inflater) copy(length, distance int) error {
	switch {
	case distance > d.window:
		return fmt.Errorf("a distance of %d, in a window of %d", distance, d.window)
	case distance > len(d.out):
		return fmt.Errorf("a distance of %d, behind %d bytes", distance, len(d.out))
	}
	d.back = max(d.back, distance-(len(d.out)-d.start))
	if distance >= length {
		from := len(d.out) - distance
		d.out = append(d.out, d.out[from:from+length]...)
		return nil
	}
	for range length {
		d.out = append(d.out, d.out[len(d.out)-distance])
	}
	return nil
}

// code is a Huffman code (section 3.2.2).
type code struct {
	short   [1 << shortBits]uint16 // symbol<<4 | length, by the next bits; 0 for longer codes
	count   [16]int                // of codes of each length
	symbols [320]uint16            // in order of their codes
}

const shortBits = 10

func (c *code) build(sizes []uint8) {
	c.count = [16]int{}
	for _, n := range sizes {
		c.count[n]++
	}
	c.count[0] = 0
	var offset, next [17]int
	for n := 1; n < 16; n++ {
		offset[n+1] = offset[n] + c.count[n]
		next[n+1] = (next[n] + c.count[n]) << 1
	}
	clear(c.short[:])
	for symbol, n := range sizes {
		if n == 0 {
			continue
		}
		c.symbols[offset[n]] = uint16(symbol)
		offset[n]++
		value := next[n]
		next[n]++
		if n > shortBits {
			continue
		}
		reversed := 0
		for i := range n {
			reversed |= value >> i & 1 << (n - 1 - i)
		}
		for ; reversed < len(c.short); reversed += 1 << n {
			c.short[reversed] = uint16(symbol)<<4 | uint16(n)
		}
	}
}

// symbol reads one symbol of c.
func (d *inflater) symbol(c *code) (int, error) {
	d.need(15)
	if s := c.short[d.bits&(1<<shortBits-1)]; s != 0 && uint(s&15) <= d.count {
		n := uint(s & 15)
		d.bits >>= n
		d.count -= n
		return int(s >> 4), nil
	}
	value, first, index := 0, 0, 0
	for n := uint(1); n < 16; n++ {
		if n > d.count {
			return 0, errTruncated
		}
		value |= int(d.bits >> (n - 1) & 1)
		if value-first < c.count[n] {
			d.bits >>= n
			d.count -= n
			return int(c.symbols[index+value-first]), nil
		}
		index += c.count[n]
		first = (first + c.count[n]) << 1
		value <<= 1
	}
	return 0, errors.New("an unknown code")
}
