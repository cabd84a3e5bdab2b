package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// sample is what one measurement of traffic showed.
type sample struct {
	messages   int64
	deliveries int64
	wall       time.Duration
	cpu        time.Duration // of the measured process
	loadCPU    time.Duration // of the load generator
	latency    *histogram
}

// perMillion returns CPU-seconds per million deliveries.
func (s *sample) perMillion() float64 { return s.cpu.Seconds() / float64(s.deliveries) * 1e6 }

// metrics returns what is written about s. Latency says something only about
// messages that were due at a time of their own.
func (s *sample) metrics(latency bool) []metric {
	m := []metric{
		{"cpu-s/M", s.perMillion()},
		{"deliveries/s", float64(s.deliveries) / s.wall.Seconds()},
		{"load-cpu-s/M", s.loadCPU.Seconds() / float64(s.deliveries) * 1e6},
	}
	if latency {
		m = append(m,
			metric{"p50-ms", ms(s.latency.quantile(0.50))},
			metric{"p99-ms", ms(s.latency.quantile(0.99))},
			metric{"max-ms", ms(time.Duration(s.latency.max))})
	}
	return m
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// metric is one figure and its unit.
type metric struct {
	unit  string
	value float64
}

// row is a line that benchstat reads.
type row struct {
	name    string // after "Benchmark"
	n       int64
	nsPerOp float64
	metrics []metric
}

func (r row) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Benchmark%s-%d\t%10d\t%12.1f ns/op", r.name, runtime.NumCPU(), r.n, r.nsPerOp)
	for _, m := range r.metrics {
		fmt.Fprintf(&b, "\t%10s %s", digits(m.value), m.unit)
	}
	return b.String()
}

// digits writes v with four significant digits, and whole where it is large.
func digits(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

// row makes the sample's line.
func (s *sample) row(name string, latency bool, more ...metric) row {
	return row{
		name: name, n: s.deliveries, nsPerOp: float64(s.wall.Nanoseconds()) / float64(s.deliveries),
		metrics: append(s.metrics(latency), more...),
	}
}

// report collects rows and says what they come to.
type report struct {
	out    io.Writer // rows, as they come
	rows   []row
	goals  []goal
	header string
}

// goal is a figure with the value to reach.
type goal struct {
	id, what string
	unit     string
	most     float64 // the value to stay at or below; 0 for none
	least    float64 // the value to reach; 0 for none
	values   []float64
}

func (r *report) add(rows ...row) {
	for _, row := range rows {
		r.rows = append(r.rows, row)
		fmt.Fprintln(r.out, row)
	}
}

// goal notes one round's value of a figure that has a target.
func (r *report) goal(g goal, value float64) {
	for i := range r.goals {
		if r.goals[i].id == g.id && r.goals[i].what == g.what {
			r.goals[i].values = append(r.goals[i].values, value)
			return
		}
	}
	g.values = []float64{value}
	r.goals = append(r.goals, g)
}

// summary writes the medians of all rows of one name, and the goals, as lines
// that benchstat skips.
func (r *report) summary(w io.Writer) {
	var names []string
	byName := map[string][]row{}
	for _, row := range r.rows {
		if byName[row.name] == nil {
			names = append(names, row.name)
		}
		byName[row.name] = append(byName[row.name], row)
	}
	fmt.Fprintf(w, "\n# medians (and spread: largest over smallest)\n")
	for _, name := range names {
		rows := byName[name]
		fmt.Fprintf(w, "# %-66s", name)
		for i, m := range rows[0].metrics {
			var v []float64
			for _, row := range rows {
				v = append(v, row.metrics[i].value)
			}
			fmt.Fprintf(w, "  %s %s", digits(median(v)), m.unit)
			if i == 0 {
				fmt.Fprintf(w, " (%s)", spread(v))
			}
		}
		fmt.Fprintln(w)
	}
	if len(r.goals) == 0 {
		return
	}
	fmt.Fprintf(w, "\n# %-5s %-62s %10s %8s %10s\n", "goal", "what", "median", "spread", "to reach")
	for _, g := range r.goals {
		got, want, verdict := median(g.values), "", ""
		switch {
		case g.most > 0:
			want, verdict = "<= "+digits(g.most), passes(got <= g.most)
		case g.least > 0:
			want, verdict = ">= "+digits(g.least), passes(got >= g.least)
		}
		fmt.Fprintf(w, "# %-5s %-62s %10s %8s %10s %s %s\n", g.id, g.what, digits(got), spread(g.values), want, g.unit, verdict)
	}
}

func passes(ok bool) string {
	if ok {
		return "reached"
	}
	return "MISSED"
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n == 0 {
		return math.NaN()
	}
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// spread says how far the rounds lie apart: the noise.
func spread(v []float64) string {
	lo, hi := slices.Min(v), slices.Max(v)
	if lo <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", hi/lo)
}

// header describes the machine and the command, in benchstat's key: value form
// where benchstat knows the key.
func header(args []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: github.com/fanfare/fanfare/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpuModel())
	fmt.Fprintf(&b, "commit: %s\ndate: %s\ngo: %s\nkernel: %s\nload: %s\n", commit(), time.Now().UTC().Format(time.RFC3339), runtime.Version(),
		firstLine("/proc/sys/kernel/osrelease"), firstLine("/proc/loadavg"))
	fmt.Fprintf(&b, "# go run ./bench %s\n", strings.Join(args, " "))
	return b.String()
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // an empty answer is "unknown", too
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return fmt.Sprintf("%s x%d", strings.TrimSpace(v), runtime.NumCPU())
		}
	}
	return fmt.Sprintf("unknown x%d", runtime.NumCPU())
}

// commit names what is measured; "-changed" says that the tree had more to it.
func commit() string {
	id, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	c := strings.TrimSpace(string(id))
	if changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(changed) > 0 {
		c += "-changed"
	}
	return c
}

var unsafeInNames = regexp.MustCompile(`[^a-z0-9]+`)

// resultPath is where a run's results are kept by default.
func resultPath() string {
	dir := "bench/results"
	if _, err := os.Stat("bench"); err != nil {
		dir = "results"
	}
	machine := fmt.Sprintf("%s-%s-%dcpu", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if host, err := os.Hostname(); err == nil {
		machine = unsafeInNames.ReplaceAllString(strings.ToLower(host), "-") + "-" + machine
	}
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%s.txt", time.Now().UTC().Format("2006-01-02"), machine, commit()))
}
