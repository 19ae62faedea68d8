package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// seen is what became of one profile, by UID.
type seen struct {
	sent, answered time.Time // of its create
	job, completed time.Time // the events of the watches
	jobs           int
}

// follower watches profiles and Jobs, notes when it saw what, and has the kubelet play each Job.
type follower struct {
	api     *api
	kubelet *kubelet

	mutex   sync.Mutex
	changed *sync.Cond
	byUID   map[string]*seen
	failure error
}

func follow(ctx context.Context, a *api) (*follower, error) {
	f := &follower{api: a, kubelet: newKubelet(a), byUID: map[string]*seen{}}
	f.changed = sync.NewCond(&f.mutex)
	if err := a.watch(ctx, profiles, f.onProfile); err != nil {
		return nil, err
	}
	return f, a.watch(ctx, jobs, f.onJob)
}

func (f *follower) fail(err error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.failure == nil {
		f.failure = err
	}
	f.changed.Broadcast()
}

// of finds or makes the entry: an event may come before the answer to the create does. Locked by the caller.
func (f *follower) of(uid string) *seen {
	s := f.byUID[uid]
	if s == nil {
		s = &seen{}
		f.byUID[uid] = s
	}
	return s
}

func (f *follower) onProfile(e *event) {
	var status struct{ Phase, Reason, Message string }
	if e.Type == "DELETED" || len(e.Object.Status) == 0 || json.Unmarshal(e.Object.Status, &status) != nil {
		return
	}
	if status.Phase == "Failed" {
		f.fail(fmt.Errorf("profile %s failed: %s: %s", e.Object.Metadata.Name, status.Reason, status.Message))
	}
	if status.Phase != "Completed" {
		return
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if s := f.of(e.Object.Metadata.UID); s.completed.IsZero() {
		s.completed = e.at
		f.changed.Broadcast()
	}
}

func (f *follower) onJob(e *event) {
	if e.Type != "ADDED" {
		return
	}
	f.mutex.Lock()
	s := f.of(e.Object.Metadata.Labels["profiling.pyspy.dev/profile-uid"])
	s.jobs++
	if s.job.IsZero() {
		s.job = e.at
	}
	f.changed.Broadcast()
	f.mutex.Unlock()
	go func() {
		if err := f.kubelet.run(&e.Object); err != nil {
			f.fail(err)
		}
	}()
}

// create applies one profile of target number i and returns its UID.
func (f *follower) create(name string, i int) (string, error) {
	body := profile(name, i)
	sent := time.Now()
	answer, err := f.api.create(profiles, body)
	answered := time.Now()
	if err != nil {
		return "", err
	}
	var o object
	if err := json.Unmarshal(answer, &o); err != nil {
		return "", err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	s := f.of(o.Metadata.UID)
	s.sent, s.answered = sent, answered
	return o.Metadata.UID, nil
}

// wait returns when done holds for every one of uids.
func (f *follower) wait(uids []string, limit time.Duration, done func(*seen) bool) error {
	end := time.Now().Add(limit)
	wake := time.AfterFunc(limit, f.changed.Broadcast)
	defer wake.Stop()
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for i := 0; i < len(uids); {
		switch {
		case f.failure != nil:
			return f.failure
		case done(f.of(uids[i])):
			i++
		case time.Now().After(end):
			return fmt.Errorf("after %s, %d of %d profiles are not as far as they should be", limit, len(uids)-i, len(uids))
		default:
			f.changed.Wait()
		}
	}
	return nil
}

func hasJob(s *seen) bool      { return !s.job.IsZero() }
func isCompleted(s *seen) bool { return !s.completed.IsZero() }
