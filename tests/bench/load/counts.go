package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// counts are requests by "VERB resource[/subresource]".
type counts map[string]float64

var (
	labelPattern = regexp.MustCompile(`(\w+)="([^"]*)"`)
	counted      = map[string]bool{
		"pyspyprofiles": true, "jobs": true, "pods": true, "configmaps": true, "secrets": true, "nodes": true,
		"events": true, "tokenreviews": true,
	}
)

// samples calls see for each sample of a metric in the text exposition format.
func samples(text, metric string, see func(labels map[string]string, value float64)) {
	for _, line := range strings.Split(text, "\n") {
		rest, ok := strings.CutPrefix(line, metric+"{")
		if !ok {
			continue
		}
		end := strings.LastIndex(rest, "} ")
		if end < 0 {
			continue
		}
		labels := map[string]string{}
		for _, m := range labelPattern.FindAllStringSubmatch(rest[:end], -1) {
			labels[m[1]] = m[2]
		}
		value, err := strconv.ParseFloat(strings.Fields(rest[end+2:])[0], 64)
		if err == nil {
			see(labels, value)
		}
	}
}

// serverCounts is what the API server has counted that this tool did not send. Watches and Leases are not work on a
// profile; other resources are the API server's own business (it is a client of itself).
func serverCounts(a *api) (counts, error) {
	text, err := a.do("GET", "/metrics", "", nil)
	if err != nil {
		return nil, err
	}
	c := counts{}
	samples(string(text), "apiserver_request_total", func(labels map[string]string, value float64) {
		if labels["verb"] == "WATCH" || !counted[labels["resource"]] {
			return
		}
		k := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			k += "/" + labels["subresource"]
		}
		c[k] += value
	})
	a.mutex.Lock()
	defer a.mutex.Unlock()
	for k, n := range a.sent {
		if _, there := c[k]; there {
			c[k] -= float64(n)
		}
	}
	return c, nil
}

// ownCounts is what our controller says it asked of the API server; a program without that metric has none.
func ownCounts(url string) (counts, error) {
	response, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s %v", url, response.Status, err)
	}
	c := counts{}
	samples(string(text), "pyspy_api_requests_total", func(labels map[string]string, value float64) {
		resource, _, _ := strings.Cut(labels["resource"], "/")
		if labels["verb"] != "watch" && counted[resource] {
			c[labels["verb"]+" "+labels["resource"]] += value
		}
	})
	return c, nil
}

func (after counts) since(before counts) counts {
	d := counts{}
	for k, v := range after {
		if v -= before[k]; v != 0 {
			d[k] = v
		}
	}
	return d
}

// perProfile sums up by what the request is for.
type perProfile struct{ writes, reads, reviews, events float64 }

func (c counts) perProfile(n int) (p perProfile) {
	for k, v := range c {
		verb, resource, _ := strings.Cut(k, " ")
		v /= float64(n)
		switch {
		case resource == "tokenreviews":
			p.reviews += v
		case resource == "events":
			p.events += v
		case verb == "GET" || verb == "LIST" || verb == "get" || verb == "list":
			p.reads += v
		default:
			p.writes += v
		}
	}
	return p
}
