package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"
	"time"
)

const (
	jobLimit      = time.Minute
	completeLimit = 3 * time.Minute
	settle        = 2 * time.Second
	historySettle = 20 * time.Second
)

// figures are what was measured of one program: for each figure the values of all rounds, of which the median counts.
type figures map[string][]float64

func (f figures) add(name string, value float64) { f[name] = append(f[name], value) }

func (f figures) median(name string) (float64, bool) {
	if len(f[name]) == 0 {
		return 0, false
	}
	return quantile(f[name], 0.5), true
}

// quantile by nearest rank; values stay as they are.
func quantile(values []float64, q float64) float64 {
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mb(bytes int64) float64     { return float64(bytes) / 1e6 }

type bench struct {
	api     *api
	options options
	ours    *operator
	peer    *operator
	results map[string]figures // by operator
	serial  int
}

func (b *bench) of(o *operator) figures { return b.results[o.name] }

func (b *bench) say(format string, arguments ...any) {
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(os.Stderr, "%s load %s  %s\n", time.Now().Format("15:04:05"), strings.Fields(string(load))[0], fmt.Sprintf(format, arguments...))
}

func (b *bench) names(prefix string, n int) []string {
	b.serial++
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%03d-%04d", prefix, b.serial, i)
	}
	return names
}

// starts: one profile waits; from the start of the process to its Job, then what SIGTERM takes.
func (b *bench) starts(o *operator, suffix string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, err := follow(ctx, b.api)
	if err != nil {
		return err
	}
	uid, err := f.create(b.names("start", 1)[0], b.serial)
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // it waits, as it would
	if err := o.start(); err != nil {
		return err
	}
	if err := f.wait([]string{uid}, jobLimit, hasJob); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	first := f.byUID[uid].job.Sub(o.started)
	if err := f.wait([]string{uid}, completeLimit, isCompleted); err != nil {
		return fmt.Errorf("%s: %w", o.name, err)
	}
	time.Sleep(settle)
	u, err := o.usage()
	if err != nil {
		return err
	}
	stop, err := o.stop()
	if err != nil {
		return err
	}
	r := b.of(o)
	r.add("start"+suffix, ms(first))
	r.add("stop"+suffix, ms(stop))
	r.add("rss"+suffix, mb(u.rss))
	r.add("anon"+suffix, mb(u.anon))
	r.add("threads", float64(u.threads))
	b.say("%s: first Job after %.0f ms, stopped in %.0f ms, RSS %.1f MB, anonymous %.1f MB", o.name, ms(first), ms(stop), mb(u.rss), mb(u.anon))
	return nil
}

// warm starts the operator and has it complete one profile, so that it leads and all its connections stand.
func (b *bench) warm(o *operator, f *follower) (string, error) {
	if err := o.start(); err != nil {
		return "", err
	}
	name := b.names("warm", 1)[0]
	uid, err := f.create(name, 0)
	if err != nil {
		return "", err
	}
	if err := f.wait([]string{uid}, completeLimit, isCompleted); err != nil {
		return "", fmt.Errorf("%s: %w", o.name, err)
	}
	time.Sleep(settle)
	return name, nil
}

func (b *bench) idle(o *operator, suffix string) error {
	before, err := o.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(b.options.idle)
	after, err := o.usage()
	if err != nil {
		return err
	}
	seconds := time.Since(began).Seconds()
	r := b.of(o)
	r.add("wakeups"+suffix, float64(after.wakeups-before.wakeups)/seconds)
	r.add("idle-cpu"+suffix, ms(after.cpu-before.cpu)/seconds)
	r.add("idle-rss"+suffix, mb(after.rss))
	r.add("idle-anon"+suffix, mb(after.anon))
	b.say("%s: idle: %.1f wake-ups/s, %.2f ms CPU/s, RSS %.1f MB, anonymous %.1f MB", o.name,
		float64(after.wakeups-before.wakeups)/seconds, ms(after.cpu-before.cpu)/seconds, mb(after.rss), mb(after.anon))
	return o.alive()
}

// outcome of a number of profiles.
type outcome struct {
	toJob, toCompleted []float64 // ms from the answer to the create
	wall               time.Duration
	cpu                time.Duration
	requests, own      perProfile
	detail             counts
}

// work has the operator do n profiles; interval 0: as fast as 16 clients create them.
func (b *bench) work(o *operator, f *follower, prefix string, n int, interval time.Duration) (r outcome, err error) {
	names := b.names(prefix, n)
	uids := make([]string, n)
	requests, err := serverCounts(b.api)
	if err != nil {
		return r, err
	}
	var own counts
	if o == b.ours {
		if own, err = ownCounts(o.metrics); err != nil {
			return r, err
		}
	}
	before, err := o.usage()
	if err != nil {
		return r, err
	}
	began := time.Now()
	err = each(n, 16, func(i int) (err error) {
		time.Sleep(time.Until(began.Add(time.Duration(i) * interval)))
		uids[i], err = f.create(names[i], i)
		return err
	})
	if err == nil {
		err = f.wait(uids, completeLimit, isCompleted)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", o.name, err)
	}
	after, err := o.usage()
	if err != nil {
		return r, err
	}
	time.Sleep(time.Second) // Events come late
	now, err := serverCounts(b.api)
	if err != nil {
		return r, err
	}
	r.detail = now.since(requests)
	r.requests = r.detail.perProfile(n)
	if own != nil {
		now, err := ownCounts(o.metrics)
		if err != nil {
			return r, err
		}
		r.own = now.since(own).perProfile(n)
	}
	r.cpu = after.cpu - before.cpu
	for _, uid := range uids {
		s := f.byUID[uid]
		if s.jobs != 1 {
			return r, fmt.Errorf("%s made %d Jobs of one profile", o.name, s.jobs)
		}
		r.toJob = append(r.toJob, ms(s.job.Sub(s.answered)))
		r.toCompleted = append(r.toCompleted, ms(s.completed.Sub(s.answered)))
		r.wall = max(r.wall, s.completed.Sub(began))
	}
	return r, o.alive()
}

func (b *bench) steady(o *operator, f *follower, rate int, duration time.Duration) error {
	n := int(duration.Seconds() * float64(rate))
	x, err := b.work(o, f, fmt.Sprintf("steady%d", rate), n, time.Second/time.Duration(rate))
	if err != nil {
		return err
	}
	r, at := b.of(o), fmt.Sprintf("-%d", rate)
	r.add("job-p50"+at, quantile(x.toJob, 0.5))
	r.add("job-p99"+at, quantile(x.toJob, 0.99))
	r.add("completed-p50"+at, quantile(x.toCompleted, 0.5)-ms(samplingTime))
	r.add("cpu"+at, ms(x.cpu)/float64(n))
	if rate == slowRate {
		r.add("writes", x.requests.writes)
		r.add("reads", x.requests.reads)
		r.add("reviews", x.requests.reviews)
		r.add("events", x.requests.events)
		r.add("own", x.own.writes+x.own.reads)
		r.add("own-reviews", x.own.reviews)
		r.add("own-events", x.own.events)
	}
	b.say("%s: %d/s: Job after p50 %.1f p99 %.1f ms, %.2f ms CPU each; requests %v", o.name, rate,
		quantile(x.toJob, 0.5), quantile(x.toJob, 0.99), ms(x.cpu)/float64(n), x.detail)
	return nil
}

func (b *bench) burst(o *operator, f *follower) error {
	n := b.options.burst
	x, err := b.work(o, f, "burst", n, 0)
	if err != nil {
		return err
	}
	u, err := o.usage()
	if err != nil {
		return err
	}
	r := b.of(o)
	r.add("burst-rate", float64(n)/x.wall.Seconds())
	r.add("burst-completed-p50", quantile(x.toCompleted, 0.5))
	r.add("burst-cpu", ms(x.cpu)/float64(n))
	r.add("burst-writes", x.requests.writes)
	r.add("burst-rss", mb(u.rss))
	r.add("burst-anon", mb(u.anon))
	if stored := f.kubelet.stored.Load(); stored > 0 {
		r.add("uploads-again", float64(f.kubelet.tries.Load()-stored))
	}
	b.say("%s: burst of %d: %.1f/s, Completed p50 %.0f ms, %.2f ms CPU each, then RSS %.1f MB; requests %v", o.name, n,
		float64(n)/x.wall.Seconds(), quantile(x.toCompleted, 0.5), ms(x.cpu)/float64(n), mb(u.rss), x.detail)
	return nil
}

// round is all the work on a running operator.
func (b *bench) round(o *operator) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, err := follow(ctx, b.api)
	if err != nil {
		return err
	}
	if _, err := b.warm(o, f); err != nil {
		return err
	}
	if err := b.idle(o, ""); err != nil {
		return err
	}
	if err := b.steady(o, f, slowRate, b.options.steady); err != nil {
		return err
	}
	if err := b.steady(o, f, fastRate, b.options.steady); err != nil {
		return err
	}
	if err := b.burst(o, f); err != nil {
		return err
	}
	_, err = o.stop()
	return err
}

// firstLook waits until an operator has gone through the finished profiles once, if it does, and notes what that took.
func (b *bench) firstLook(o *operator, f *follower) error {
	if _, err := b.warm(o, f); err != nil {
		return err
	}
	before, err := o.usage()
	if err != nil {
		return err
	}
	time.Sleep(historySettle)
	after, err := o.usage()
	if err != nil {
		return err
	}
	b.of(o).add("look-cpu", ms(after.cpu-before.cpu))
	return nil
}

// withHistory is idling with the finished profiles there.
func (b *bench) withHistory(o *operator) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, err := follow(ctx, b.api)
	if err != nil {
		return err
	}
	if err := b.firstLook(o, f); err != nil {
		return err
	}
	if err := b.idle(o, historySuffix); err != nil {
		return err
	}
	_, err = o.stop()
	return err
}
