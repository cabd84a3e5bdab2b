package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version returns the module's version and the commit it was built from.
func version() (module, commit string) {
	module, commit = "(devel)", ""
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return module, commit
	}
	if b.Main.Version != "" {
		module = b.Main.Version
	}
	dirty := false
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if commit != "" && dirty {
		commit += " with changes"
	}
	return module, commit
}

func versionLine() string {
	module, commit := version()
	if commit == "" {
		commit = "unknown"
	}
	return fmt.Sprintf("fanfare %s, commit %s, %s %s/%s", module, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
