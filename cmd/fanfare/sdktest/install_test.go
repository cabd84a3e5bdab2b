package sdktest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// need returns a program's path. On a machine without it the test is skipped,
// or fails where CI=true: there every SDK must be tried.
func need(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	unavailable(t, "no "+strings.Join(names, " or ")+" on this machine")
	return ""
}

// unavailable skips the test, or fails it where CI=true.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why + ", and CI=true asks for every SDK")
	}
	t.Skip(why + ": skipped")
}

// installed returns the folder below the user's cache that holds what the lock
// files ask for, installing it there first where it is missing. The folder's
// name is a hash of the files, so that a changed pin is a new folder; it gets
// that name only once it is complete, so that an interrupted run leaves nothing
// half done.
func installed(t *testing.T, language string, locks []string, install func(dir string)) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	for _, lock := range locks {
		text, err := os.ReadFile(lock)
		if err != nil {
			t.Fatal(err)
		}
		h.Write(text)
	}
	parent := filepath.Join(cache, "fanfare-sdktest")
	dir := filepath.Join(parent, language+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		t.Logf("%s packages: cached in %s", language, dir)
		return dir
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	// Beside its final place, which a rename can reach.
	work, err := os.MkdirTemp(parent, language+"-installing-") //nolint:usetesting // t.TempDir may lie on another disk
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	t.Logf("%s packages: installing into %s", language, dir)
	began := time.Now()
	for _, lock := range locks {
		text, err := os.ReadFile(lock)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, filepath.Base(lock)), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	install(work)
	if err := os.Rename(work, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else another run was faster
			t.Fatal(err)
		}
	}
	t.Logf("%s packages: installed in %.0f s", language, time.Since(began).Seconds())
	return dir
}

// fetch runs a program in dir that asks a package registry. A registry may have a
// bad moment: what fails is tried three times.
func fetch(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	for pause := 5 * time.Second; ; pause *= 4 {
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		err := runErr(t, 8*time.Minute, cmd)
		if err == nil {
			return
		}
		if pause > 20*time.Second {
			t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
		}
		t.Logf("%s: %v; once more in %s", strings.Join(cmd.Args, " "), err, pause)
		<-time.After(pause)
	}
}

// nodeModules installs what folder's package-lock.json pins and returns the
// value of NODE_PATH that makes it visible to a program run in place.
func nodeModules(t *testing.T, folder string) string {
	t.Helper()
	npm := need(t, "npm")
	locks := []string{filepath.Join(folder, "package.json"), filepath.Join(folder, "package-lock.json")}
	dir := installed(t, "javascript", locks, func(dir string) {
		fetch(t, dir, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	})
	return filepath.Join(dir, "node_modules")
}

// pythonWith makes a virtual environment with what folder's requirements.txt
// pins and returns its interpreter.
func pythonWith(t *testing.T, folder string) string {
	t.Helper()
	python := need(t, "python3", "python")
	dir := installed(t, "python", []string{filepath.Join(folder, "requirements.txt")}, func(dir string) {
		run(t, 3*time.Minute, exec.Command(python, "-m", "venv", filepath.Join(dir, "venv")))
		fetch(t, dir, venvPython(dir), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
			"--require-hashes", "--only-binary", ":all:", "-r", "requirements.txt")
	})
	return venvPython(dir)
}

func venvPython(dir string) string { return filepath.Join(dir, "venv", "bin", "python") }

// jars resolves what folder's pom.xml pins and returns the class path of all of it.
func jars(t *testing.T, folder string) string {
	t.Helper()
	mvn := need(t, "mvn")
	dir := installed(t, "java", []string{filepath.Join(folder, "pom.xml")}, func(dir string) {
		// What could not be had a moment ago is asked for again.
		fetch(t, dir, mvn, "--batch-mode", "--quiet", "--update-snapshots", "-Dstyle.color=never", "dependency:copy-dependencies", "-DoutputDirectory=lib")
	})
	return filepath.Join(dir, "lib", "*")
}
