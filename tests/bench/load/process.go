package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const stopLimit = 15 * time.Second

// operator is one of the programs under test.
type operator struct {
	name    string
	argv    []string
	metrics string // URL of its own metrics
	log     *os.File

	command *exec.Cmd
	started time.Time
	ended   chan struct{}
}

func (o *operator) start() error {
	o.command = exec.Command(o.argv[0], o.argv[1:]...)
	o.command.Stdout, o.command.Stderr = o.log, o.log
	// Whatever ends this tool ends what it measures.
	o.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	o.started = time.Now()
	if err := o.command.Start(); err != nil {
		return err
	}
	o.ended = make(chan struct{})
	go func(command *exec.Cmd, ended chan struct{}) {
		command.Wait() // how it ended is in its log; stop and alive ask whether
		close(ended)
	}(o.command, o.ended)
	return nil
}

func (o *operator) alive() error {
	select {
	case <-o.ended:
		return fmt.Errorf("%s has ended: %s; see %s", o.name, o.command.ProcessState, o.log.Name())
	default:
		return nil
	}
}

// stop sends SIGTERM and tells how long the program took to end.
func (o *operator) stop() (time.Duration, error) {
	if err := o.alive(); err != nil {
		return 0, err
	}
	asked := time.Now()
	if err := o.command.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-o.ended:
		return time.Since(asked), nil
	case <-time.After(stopLimit):
		o.command.Process.Kill()
		<-o.ended
		return 0, fmt.Errorf("%s did not end within %s of SIGTERM", o.name, stopLimit)
	}
}

// usage of a process up to now, over all its threads.
type usage struct {
	cpu     time.Duration
	wakeups int64 // times that a thread had given up the CPU by itself, to wait
	rss     int64 // bytes
	anon    int64
	threads int
}

func (o *operator) usage() (u usage, err error) {
	folder := fmt.Sprintf("/proc/%d", o.command.Process.Pid)
	tasks, err := filepath.Glob(folder + "/task/*")
	if err != nil || len(tasks) == 0 {
		return u, fmt.Errorf("%s: no threads: %v", o.name, o.alive())
	}
	u.threads = len(tasks)
	for _, t := range tasks {
		schedstat, _ := os.ReadFile(t + "/schedstat")
		if f := strings.Fields(string(schedstat)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			u.cpu += time.Duration(ns)
		}
		u.wakeups += statusField(t+"/status", "voluntary_ctxt_switches")
	}
	u.rss = statusField(folder+"/status", "VmRSS") << 10
	u.anon = statusField(folder+"/status", "RssAnon") << 10
	return u, nil
}

func statusField(path, name string) int64 {
	text, _ := os.ReadFile(path)
	_, rest, _ := bytes.Cut(text, []byte("\n"+name+":"))
	f := bytes.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(f[0]), 10, 64)
	return n
}
