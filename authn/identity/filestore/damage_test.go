package filestore_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn/identity/filestore"
)

const damageKeys = 500

// sound returns what is in the file of a store with some keys.
func sound(t *testing.T) []byte {
	path := file(t)
	s := open(t, path)
	parallel(t, 64, damageKeys, func(i int) error {
		_, err := s.Put(t.Context(), benchKey(i), fmt.Append(nil, i), 0)
		return err
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// A file whose pages are not what was written is refused by name, and takes nobody with
// it; where the damage is in pages that nothing is in, all is there.
func TestDamage(t *testing.T) {
	content := sound(t)
	page := os.Getpagesize()
	refused := map[string]int{}
	try := func(what string, damaged []byte) {
		path := file(t)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := filestore.Open(path)
		kind, _, _ := strings.Cut(what, " ")
		if err != nil {
			refused[kind]++
			if !strings.Contains(err.Error(), path+": the file is damaged") {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		defer s.Close()
		for i := range damageKeys {
			if value, _, err := s.Get(t.Context(), benchKey(i)); err != nil || string(value) != fmt.Sprint(i) {
				t.Fatalf("%s: key %d holds %q, %v", what, i, value, err)
			}
		}
		if _, err := s.Put(t.Context(), "more", nil, 0); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for size := 1; size < len(content); size += page - 1 {
		try(fmt.Sprintf("cut to %d bytes", size), content[:size])
	}
	for at := 2 * page; at < len(content); at += page {
		for _, b := range []byte{0, 0xff} {
			damaged := bytes.Clone(content)
			copy(damaged[at:], bytes.Repeat([]byte{b}, page))
			try(fmt.Sprintf("filled from %d with %#x", at, b), damaged)
		}
		damaged := bytes.Clone(content)
		copy(damaged[at:], content[at-page:at])
		try(fmt.Sprintf("repeated at %d", at), damaged)
	}
	garbled := bytes.Clone(content)
	copy(garbled, bytes.Repeat([]byte("torn"), page/2))
	try("headless", garbled)
	t.Logf("of %d pages; refused: %v", len(content)/page, refused)
	if refused["cut"] < 5 || refused["filled"] < 5 || refused["repeated"] < 5 || refused["headless"] != 1 {
		t.Errorf("too little was refused: %v", refused)
	}
}

// A change is in force with the page that names it, of which there are two: if one was
// torn, the other has the state before or after.
func TestTornHead(t *testing.T) {
	content := sound(t)
	page := os.Getpagesize()
	there := 0
	for head := range 2 {
		torn := bytes.Clone(content)
		copy(torn[head*page:], bytes.Repeat([]byte("torn"), 8))
		path := file(t)
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, path)
		for i := range damageKeys {
			if _, _, err := s.Get(t.Context(), benchKey(i)); err == nil {
				there++
			}
		}
	}
	if there <= damageKeys || there >= 2*damageKeys {
		t.Errorf("%d keys are there: want %d once, and less by one commit the other time", there, damageKeys)
	}
}

// What was left by a process that was killed while it made the file is made anew.
func TestHalfMade(t *testing.T) {
	whole := file(t)
	if err := open(t, whole).Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range [][]byte{nil, content[:1], content[:os.Getpagesize()], content[:2*os.Getpagesize()], content[:3*os.Getpagesize()],
		content[:4*os.Getpagesize()], make([]byte, 4*os.Getpagesize()), content} {
		path := file(t)
		if err := os.WriteFile(path+".new", half, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, path)
		if _, err := s.Put(t.Context(), "a", nil, 0); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path + ".new"); err == nil {
			t.Error("the half file is still there")
		}
	}
}
