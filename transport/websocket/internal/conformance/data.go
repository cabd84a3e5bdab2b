package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"unicode/utf8"
)

// Data is what the messages of rounds are cut from, in characters for text and in
// bytes otherwise.
type Data struct {
	Name string
	Kind EventKind

	once   sync.Once
	make   func() []byte
	pieces []byte // twice what make has returned, so that a message may begin near its end
	starts []int  // of the characters of pieces; nil if each has one byte
}

// datasets are those of cases 12.1 to 12.5. Like the files of Autobahn's suite they hold
// JSON, a bitmap, a play, HTML and bytes that hardly compress, and have their sizes. They
// are the same in every run.
var datasets = [...]*Data{
	{Name: "JSON", Kind: Text, make: makeJSON},
	{Name: "a bitmap", Kind: Binary, make: makeBitmap},
	{Name: "a play in German", Kind: Binary, make: makePlay},
	{Name: "HTML", Kind: Text, make: makeHTML},
	{Name: "bytes that hardly compress", Kind: Binary, make: makeNoise},
}

func (d *Data) load() {
	d.once.Do(func() {
		if d.make != nil {
			d.pieces = d.make()
		}
		d.pieces = append(d.pieces, d.pieces...)
		if d.Kind == Text && utf8.RuneCount(d.pieces) < len(d.pieces) {
			for i := range string(d.pieces) {
				d.starts = append(d.starts, i)
			}
			d.starts = append(d.starts, len(d.pieces))
		}
	})
}

// message returns the i-th message of size characters. It must not be changed.
func (d *Data) message(i, size int) []byte {
	d.load()
	if d.starts == nil {
		from := i * size % (len(d.pieces) / 2)
		return d.pieces[from : from+size]
	}
	from := i * size % ((len(d.starts) - 1) / 2)
	return d.pieces[d.starts[from]:d.starts[from+size]]
}

func source(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7692)) }

var syllables = strings.Fields("an be der die ein fer gen hau ist je ken lie mor ner ob pfa qual ro sche ten und ver wei zu \u00fcber \u00e4n m\u00f6g gr\u00fc\u00df")

// word returns a word, of which short ones are more frequent.
func word(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(1+r.IntN(4)) {
		b.WriteString(syllables[min(r.IntN(len(syllables)), r.IntN(len(syllables)))])
	}
	return b.String()
}

// written returns what write makes when it is called until there are size characters.
func written(size int, write func(b *strings.Builder)) []byte {
	var b strings.Builder
	for utf8.RuneCountInString(b.String()) < size { // few rounds: each doubles b
		for half := b.Len(); b.Len() <= 2*half+1024; {
			write(&b)
		}
	}
	return []byte(string([]rune(b.String())[:size]))
}

func makeJSON() []byte {
	r := source(1)
	return written(194_056, func(b *strings.Builder) {
		fmt.Fprintf(b, `{"id":%d,"name":"%s %s","balance":%.2f,"active":%v,"tags":["%s","%s"],"about":"%s %s %s %s"},`+"\n",
			r.IntN(1<<30), word(r), word(r), r.Float64()*1e4, r.IntN(2) == 0, word(r), word(r), word(r), word(r), word(r), word(r))
	})
}

func makeHTML() []byte {
	r := source(2)
	return written(263_647, func(b *strings.Builder) {
		fmt.Fprintf(b, `<div class="%s"><a href="/%s/%d">%s %s</a><p>%s %s, %s %s.</p></div>`+"\n",
			word(r), word(r), r.IntN(1000), word(r), word(r), word(r), word(r), word(r), word(r))
	})
}

func makePlay() []byte {
	r := source(3)
	return written(222_218, func(b *strings.Builder) {
		fmt.Fprintf(b, "  %s %s %s,\r\n", word(r), word(r), word(r))
		if r.IntN(6) == 0 {
			fmt.Fprintf(b, "\r\n%s.\r\n", strings.ToUpper(word(r)))
		}
	})
}

// makeBitmap is a picture whose neighbouring points are alike.
func makeBitmap() []byte {
	r := source(4)
	p := make([]byte, 263_222)
	for i := range p {
		p[i] = byte(i>>9)/2 + byte(i&511)/4 + byte(r.IntN(6))
	}
	return p
}

func makeNoise() []byte {
	r := source(5)
	p := make([]byte, 1_042_328)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	for i := 0; i+64 < len(p); i += 700 { // as of headers and tables
		copy(p[i:], "/Type /Page /Parent 2 0 R /Resources 4 0 R")
	}
	return p
}
