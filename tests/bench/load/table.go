package main

import (
	"fmt"
	"io"
	"math"
)

// row is a figure; target 0: none was set.
type row struct {
	title, name string
	digits      int
	target      float64
}

var rows = []row{
	{"create → Job, 10/s, p50 ms", "job-p50-10", 1, 4},
	{"create → Job, 10/s, p99 ms", "job-p99-10", 1, 10},
	{"create → Job, 25/s, p50 ms", "job-p50-25", 1, 0},
	{"create → Job, 25/s, p99 ms", "job-p99-25", 1, 0},
	{"create → Completed less sampling, 10/s, p50 ms", "completed-p50-10", 1, 0},
	{"operator CPU a profile, 10/s, ms", "cpu-10", 2, 0},
	{"writes a profile", "writes", 2, 4},
	{"reads a profile", "reads", 2, 0},
	{"TokenReviews a profile", "reviews", 2, 0},
	{"Events a profile", "events", 2, 0},
	{"writes and reads, by its own count", "own", 2, 0},
	{"burst, profiles/s", "burst-rate", 1, 0},
	{"burst, create → Completed, p50 ms", "burst-completed-p50", 0, 0},
	{"burst, operator CPU a profile, ms", "burst-cpu", 2, 0},
	{"burst, RSS after it, MB", "burst-rss", 1, 16},
	{"burst, anonymous after it, MB", "burst-anon", 1, 0},
	{"burst, uploads tried again", "uploads-again", 0, 0},
	{"start → first Job, ms", "start", 0, 100},
	{"stop on SIGTERM, ms", "stop", 0, 10000},
	{"threads", "threads", 0, 0},
	{"idle, wake-ups/s", "wakeups", 1, 0},
	{"idle, CPU ms/s", "idle-cpu", 2, 0},
	{"idle, RSS MB", "idle-rss", 1, 16},
	{"idle, anonymous MB", "idle-anon", 1, 4},
	{"with finished profiles: start → first Job, ms", "start" + historySuffix, 0, 150},
	{"  stop on SIGTERM, ms", "stop" + historySuffix, 0, 10000},
	{"  CPU of the first 20 s, ms", "look-cpu", 0, 0},
	{"  idle, wake-ups/s", "wakeups" + historySuffix, 1, 0},
	{"  idle, CPU ms/s", "idle-cpu" + historySuffix, 2, 0},
	{"  idle, RSS MB", "idle-rss" + historySuffix, 1, 16},
	{"  idle, anonymous MB", "idle-anon" + historySuffix, 1, 4},
}

func (b *bench) table(out io.Writer) {
	fmt.Fprintf(out, "%-48s %9s %9s %7s %8s\n", "median of all rounds", "ours", "peer", "ratio", "target")
	for _, r := range rows {
		ours, have := b.of(b.ours).median(r.name)
		peer, havePeer := b.of(b.peer).median(r.name)
		if !have {
			continue
		}
		line := fmt.Sprintf("%-48s %9.*f", r.title, r.digits, ours)
		switch ratio := ours / peer; {
		case !havePeer:
			line += fmt.Sprintf(" %9s %7s", "-", "-")
		case math.IsNaN(ratio) || math.IsInf(ratio, 0):
			line += fmt.Sprintf(" %9.*f %7s", r.digits, peer, "-")
		default:
			line += fmt.Sprintf(" %9.*f %7.2f", r.digits, peer, ratio)
		}
		if r.target > 0 {
			line += fmt.Sprintf(" %8g", r.target)
		}
		fmt.Fprintln(out, line)
	}
}
