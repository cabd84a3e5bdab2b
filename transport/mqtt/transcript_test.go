package mqtt_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// The golden conversations in testdata hold byte for byte; testdata/v5.txt says how
// to read them.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var title string
		var lines []string
		n, began := 0, 0
		play := func() {
			if title == "" {
				return
			}
			lines, began := lines, began
			t.Run(filepath.Base(file)+"/"+title, func(t *testing.T) { playTranscript(t, lines, began) })
		}
		for sc := bufio.NewScanner(strings.NewReader(string(text))); sc.Scan(); {
			n++
			if name, ok := strings.CutPrefix(sc.Text(), "== "); ok {
				play()
				title, lines, began = name, nil, n
				continue
			}
			lines = append(lines, sc.Text())
		}
		play()
	}
}

// player carries out a conversation, a line at a time.
type player struct {
	t       *testing.T
	s       *server
	clients map[string]*client
}

func playTranscript(t *testing.T, lines []string, began int) {
	p := &player{t, serve(t, engine.Options{}, false), map[string]*client{}}
	steps := 0
	for i, line := range lines {
		line, _, _ = strings.Cut(line, " #")
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := p.step(line); err != nil {
			t.Fatalf("line %d: %s\n%v", began+i+1, line, err)
		}
		steps++
	}
	if steps < 2 {
		t.Errorf("%d steps", steps)
	}
}

func (p *player) step(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	if word == "!" {
		return p.serverDoes(strings.Fields(rest))
	}
	who, sign := word[:len(word)-1], word[len(word)-1]
	c := p.clients[who]
	if sign != ':' && c == nil {
		return fmt.Errorf("nobody is called %s", who)
	}
	switch sign {
	case ':':
		p.clients[who] = p.s.connect(p.t, identity(who, strings.Fields(rest)))
	case '>':
		if code, ok := strings.CutPrefix(rest, "close "); ok {
			n, err := strconv.ParseUint(code, 10, 16)
			if err != nil {
				return err
			}
			_, err = c.Write(frame(ws.OpClose, binary.BigEndian.AppendUint16(nil, uint16(n))))
			return err
		}
		if rest == "gone" {
			return c.Close()
		}
		for message := range strings.SplitSeq(rest, " | ") { // in messages of their own
			m, err := parseNotation(message)
			if err != nil {
				return err
			}
			if _, err := c.Write(frame(ws.OpBinary, m.bytes)); err != nil {
				return err
			}
		}
	case '<':
		return c.check(rest)
	default:
		return fmt.Errorf("unknown sign %q", sign)
	}
	return nil
}

func identity(user string, words []string) engine.Identity {
	id := engine.Identity{UserID: engine.UserID(user), Roles: everything}
	for _, w := range words {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "roles":
			id.Roles = strings.Split(value, ",")
		case "user":
			id.UserID = engine.UserID(value)
		case "groups":
			for g := range strings.SplitSeq(value, ",") {
				id.Groups = append(id.Groups, engine.GroupName(g))
			}
		}
	}
	return id
}

// serverDoes what an application server asks for.
func (p *player) serverDoes(words []string) error {
	h, ctx := p.s.engine.Hub("chat"), soon(p.t)
	data := func(i int) engine.Payload {
		text := strings.Join(words[i+1:], " ")
		switch words[i] {
		case "json":
			return engine.Payload{Type: engine.JSON, Data: []byte(text)}
		case "binary":
			return engine.Payload{Type: engine.Binary, Data: []byte(text)}
		}
		return engine.Payload{Type: engine.Text, Data: []byte(text)}
	}
	switch words[0] {
	case "group":
		return h.SendToGroup(ctx, engine.GroupName(words[1]), data(2), nil)
	case "user":
		return h.SendToUser(ctx, engine.UserID(words[1]), data(2), nil)
	case "add":
		return h.AddToGroup(ctx, engine.GroupName(words[1]), engine.ConnID(words[2]))
	case "close":
		return h.CloseConn(ctx, engine.ConnID(words[1]), strings.Join(words[2:], " "))
	case "shutdown":
		go p.s.engine.Shutdown(ctx)
		return nil
	}
	return fmt.Errorf("unknown verb %s", words[0])
}
