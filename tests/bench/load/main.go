// load measures two operators for PySpyProfiles, ours and a peer, against a bare API server: it creates profiles,
// plays Job controller, kubelet and runner for the Jobs that come, and prints what it saw as a table. What it measures
// and why is in ../README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	slowRate      = 10 // profiles a second: nothing queues
	fastRate      = 25 // about two thirds of what two cores can take of all this
	historySuffix = "-history"
)

type options struct {
	rounds, starts, burst, history int
	steady, idle                   time.Duration
	phases, only                   string
}

func main() {
	var server apiFlags
	var o options
	flag.StringVar(&server.server, "server", "https://127.0.0.1:19443", "the API server")
	flag.StringVar(&server.ca, "ca", "", "its authority")
	flag.StringVar(&server.cert, "cert", "", "client certificate")
	flag.StringVar(&server.key, "key", "", "its key")
	ours := flag.String("ours", "", "command line of our controller")
	peer := flag.String("peer", "", "command line of the peer")
	metrics := flag.String("metrics", "", "URL of our controller's metrics")
	logs := flag.String("logs", ".", "folder for the logs of both")
	out := flag.String("out", "", "file for all values (JSON)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of work, each on both")
	flag.IntVar(&o.starts, "starts", 5, "starts of each")
	flag.IntVar(&o.burst, "burst", 500, "profiles of a burst")
	flag.IntVar(&o.history, "history", 10000, "finished profiles")
	flag.DurationVar(&o.steady, "steady", 10*time.Second, "how long profiles are created at a steady rate")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long an operator idles")
	flag.StringVar(&o.phases, "phases", "start,work,history", "what to measure")
	flag.StringVar(&o.only, "only", "", "ours or peer: measure that one alone")
	flag.Parse()

	a, err := dial(server)
	if err != nil {
		fatal(err)
	}
	b := &bench{api: a, options: o, results: map[string]figures{"ours": {}, "peer": {}}}
	if b.ours, err = newOperator("ours", *ours, *metrics, *logs); err != nil {
		fatal(err)
	}
	if b.peer, err = newOperator("peer", *peer, "", *logs); err != nil {
		fatal(err)
	}
	if err := b.run(); err != nil {
		fatal(err)
	}
	if *out != "" {
		text, err := json.MarshalIndent(b.results, "", " ")
		if err == nil {
			err = os.WriteFile(*out, append(text, '\n'), 0o644)
		}
		if err != nil {
			fatal(err)
		}
	}
	b.table(os.Stdout)
}

func newOperator(name, command, metrics, logs string) (*operator, error) {
	argv := strings.Fields(command)
	if len(argv) == 0 {
		return nil, fmt.Errorf("--%s is missing", name)
	}
	log, err := os.Create(logs + "/" + name + ".log")
	return &operator{name: name, argv: argv, metrics: metrics, log: log}, err
}

// both runs one step on ours and the peer in turn, n times: A B A B, so that a slow minute of the machine meets both.
func (b *bench) both(n int, step func(*operator) error) error {
	for range n {
		for _, o := range []*operator{b.ours, b.peer} {
			if b.options.only != "" && o.name != b.options.only {
				continue
			}
			if err := step(o); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) run() error {
	if err := seed(b.api); err != nil {
		return err
	}
	if err := sweep(b.api); err != nil {
		return err
	}
	if strings.Contains(b.options.phases, "start") {
		// The first start of each makes what later ones find: our certificate, the Lease.
		first := b.results
		b.results = map[string]figures{"ours": {}, "peer": {}}
		if err := b.both(1, func(o *operator) error { return b.starts(o, "") }); err != nil {
			return err
		}
		b.results = first
		if err := b.both(b.options.starts, func(o *operator) error { return b.starts(o, "") }); err != nil {
			return err
		}
	}
	if strings.Contains(b.options.phases, "work") {
		err := b.both(b.options.rounds, func(o *operator) error {
			if err := b.round(o); err != nil {
				return err
			}
			return sweep(b.api)
		})
		if err != nil {
			return err
		}
	}
	if !strings.Contains(b.options.phases, "history") {
		return nil
	}
	b.say("making %d finished profiles", b.options.history)
	err := b.makeHistory()
	if err == nil {
		err = b.both(b.options.starts, func(o *operator) error { return b.starts(o, historySuffix) })
	}
	if err == nil {
		err = b.both(1, b.withHistory)
	}
	return err
}

// makeHistory copies one profile that our controller has completed.
func (b *bench) makeHistory() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, err := follow(ctx, b.api)
	if err != nil {
		return err
	}
	name, err := b.warm(b.ours, f)
	if err != nil {
		return err
	}
	if _, err := b.ours.stop(); err != nil {
		return err
	}
	return seedFinished(b.api, name, b.options.history)
}
