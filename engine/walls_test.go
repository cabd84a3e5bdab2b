package engine_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/fanfare/fanfare/"

// rooms are the folders at the top, and which of the others each may import.
var rooms = map[string][]string{
	"engine":    nil,
	"transport": {"engine", "proto"},
	"authn":     {"engine"},
	"cluster":   {"engine", "proto"},
	"proto":     nil,
	"cmd":       {"engine", "transport", "authn", "cluster", "proto"},
	"examples":  {"engine", "transport", "authn", "cluster", "proto"},
	"bench":     {"engine", "transport", "authn", "cluster", "proto"},
}

// The walls between rooms hold: nobody imports what it may not.
func TestWalls(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		room, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module), "/")
		may, known := rooms[room]
		if !known {
			t.Errorf("%s is in no room of this house", p.ImportPath)
			continue
		}
		all := append(append(p.Imports, p.TestImports...), p.XTestImports...)
		for _, imported := range all {
			rest, ours := strings.CutPrefix(imported, module)
			target, _, _ := strings.Cut(rest, "/")
			if ours && target != room && !contains(may, target) {
				t.Errorf("%s imports %s: %s may import %q", p.ImportPath, imported, room, may)
			}
		}
		if room != "engine" {
			continue
		}
		for _, imported := range p.Imports {
			first, _, _ := strings.Cut(imported, "/")
			switch {
			case strings.HasPrefix(imported, module+"engine"):
			case strings.Contains(first, "."):
				t.Errorf("%s imports %s: the engine imports the standard library only", p.ImportPath, imported)
			case imported == "net" || strings.HasPrefix(imported, "net/http") || strings.HasPrefix(imported, "encoding/json"):
				t.Errorf("%s imports %s: the engine knows no HTTP, no socket and no JSON", p.ImportPath, imported)
			}
		}
	}
	if seen < 3 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
