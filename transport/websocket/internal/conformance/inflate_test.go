package conformance

import (
	"bytes"
	"compress/flate"
	"testing"
)

// TestInflate checks the suite's own inflater by the standard library's deflater.
func TestInflate(t *testing.T) {
	var d inflater
	for _, set := range datasets {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			var packed bytes.Buffer
			w, _ := flate.NewWriter(&packed, level)
			var before []byte
			for i, size := range []int{0, 1, 16, 1000, 40_000, 131_072} {
				packed.Reset()
				want := set.message(i, size)
				w.Write(want)
				w.Flush()
				got, back, err := d.inflate(bytes.TrimSuffix(packed.Bytes(), []byte{0, 0, 0xff, 0xff}), before, 1<<15)
				if err != nil || !bytes.Equal(got, want) || back > len(before) {
					t.Fatalf("%s, level %d: %d bytes came back as %d, %d back, %v", set.Name, level, len(want), len(got), back, err)
				}
				before = append(before, want...)
				before = before[max(0, len(before)-1<<15):]
			}
		}
	}
}

// TestInflateWindow is that a stream which refers farther back than the window is told
// from one that does not.
func TestInflateWindow(t *testing.T) {
	far := append(makeNoise()[:1000], makeNoise()[:1000]...)
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, flate.BestCompression)
	w.Write(far)
	w.Flush()
	p := bytes.TrimSuffix(packed.Bytes(), []byte{0, 0, 0xff, 0xff})
	var d inflater
	if _, _, err := d.inflate(p, nil, 1000); err != nil {
		t.Error(err)
	}
	if _, _, err := d.inflate(p, nil, 512); err == nil {
		t.Error("a distance of 1000 passes for a window of 512")
	}
	packed.Reset()
	w.Write(far)
	w.Flush()
	p = bytes.TrimSuffix(packed.Bytes(), []byte{0, 0, 0xff, 0xff})
	if _, _, err := d.inflate(p, nil, 1<<15); err == nil {
		t.Error("a stream that refers to the message before passes for one that stands alone")
	}
	if _, back, err := d.inflate(p, far, 1<<15); err != nil || back == 0 {
		t.Errorf("refers %d bytes back, %v", back, err)
	}
}
