package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	namespace  = "bench"
	system     = "pyspy-system"
	profiles   = "/apis/profiling.pyspy.dev/v1alpha1/namespaces/" + namespace + "/pyspyprofiles"
	configMaps = "/api/v1/namespaces/" + namespace + "/configmaps"
	targets    = "/api/v1/namespaces/" + namespace + "/pods"
	jobs       = "/apis/batch/v1/namespaces/" + system + "/jobs"
	pods       = "/api/v1/namespaces/" + system + "/pods"
	tokens     = "/api/v1/namespaces/" + system + "/serviceaccounts/pyspy-runner/token"

	mergePatch = "application/merge-patch+json"
)

// api is a plain client that counts what it sends, so that it can be taken off what the API server counts.
type api struct {
	base   string
	client *http.Client

	mutex sync.Mutex
	sent  map[string]int // by key()
}

type apiFlags struct{ server, ca, cert, key string }

func dial(f apiFlags) (*api, error) {
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	// HTTP/1.1: a connection for each request under way, none waits for another.
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		MaxIdleConnsPerHost: 128,
	}
	return &api{base: f.server, client: &http.Client{Transport: transport}, sent: map[string]int{}}, nil
}

// key names a request as apiserver_request_total does: verb, resource, subresource.
func key(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	skip := 2 // api/v1
	if parts[0] == "apis" {
		skip = 3
	}
	if len(parts) <= skip {
		return method + " " + path // of no resource
	}
	parts = parts[skip:]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	switch {
	case len(parts) == 1 && method == "GET":
		method = "LIST"
	case len(parts) == 1 && method == "DELETE":
		method = "DELETECOLLECTION"
	case len(parts) == 3:
		parts[0] += "/" + parts[2]
	}
	return method + " " + parts[0]
}

func (a *api) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	k := key(method, path)
	a.mutex.Lock()
	a.sent[k]++
	a.mutex.Unlock()
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", "application/json")
	return a.client.Do(request)
}

// do returns the answer's body; a status that is not 2xx is an error of type *refusal.
func (a *api) do(method, path, contentType string, content any) ([]byte, error) {
	body, ok := content.([]byte)
	if content != nil && !ok {
		var err error
		if body, err = json.Marshal(content); err != nil {
			return nil, err
		}
	}
	response, err := a.send(context.Background(), method, path, contentType, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode/100 != 2 {
		err = &refusal{method, path, response.StatusCode, string(answer[:min(300, len(answer))])}
	}
	return answer, err
}

func (a *api) create(path string, content any) ([]byte, error) {
	return a.do("POST", path, "application/json", content)
}

func (a *api) patch(path string, content any) ([]byte, error) {
	return a.do("PATCH", path, mergePatch, content)
}

type refusal struct {
	method, path string
	status       int
	text         string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s %s: %d %s", r.method, r.path, r.status, r.text)
}

func isStatus(err error, status int) bool {
	r, ok := err.(*refusal)
	return ok && r.status == status
}

// object has what this tool reads of any object.
type object struct {
	Metadata struct {
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec   json.RawMessage `json:"spec"`
	Status json.RawMessage `json:"status"`
}

type event struct {
	Type   string `json:"type"`
	Object object `json:"object"`
	at     time.Time
}

// watch hands each event to see, in order, with the time at which its last byte was read; it ends with ctx. The API
// server ends the watch of a client that it thinks too slow, so it goes on from the last version seen.
func (a *api) watch(ctx context.Context, path string, see func(*event)) error {
	answer, err := a.do("GET", path+"?limit=1", "", nil)
	if err != nil {
		return err
	}
	var list object
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	version := list.Metadata.ResourceVersion
	response, err := a.openWatch(ctx, path, version)
	if err != nil {
		return err
	}
	go func() {
		for {
			err := readWatch(response, &version, see)
			response.Body.Close()
			if ctx.Err() != nil {
				return
			}
			if err == io.EOF {
				response, err = a.openWatch(ctx, path, version)
			}
			if err != nil {
				fatal(fmt.Errorf("watch %s: %w", path, err))
			}
		}
	}()
	return nil
}

func (a *api) openWatch(ctx context.Context, path, version string) (*http.Response, error) {
	query := url.Values{"watch": {"1"}, "timeoutSeconds": {"7200"}, "resourceVersion": {version}}
	response, err := a.send(ctx, "GET", path+"?"+query.Encode(), "", nil)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", response.Status)
	}
	return response, err
}

func readWatch(response *http.Response, version *string, see func(*event)) error {
	lines := bufio.NewReaderSize(response.Body, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		e := event{at: time.Now()}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		if e.Type == "ERROR" {
			return fmt.Errorf("error event: %s", line)
		}
		*version = e.Object.Metadata.ResourceVersion
		see(&e)
	}
}

// each calls do for 0..n-1 from many goroutines and returns the first error.
func each(n, concurrency int, do func(int) error) error {
	var group sync.WaitGroup
	var once sync.Once
	var first error
	next := make(chan int)
	for range concurrency {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := range next {
				if err := do(i); err != nil {
					once.Do(func() { first = err })
				}
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	return first
}

// fatal ends the tool; the programs that it started end with it (see start).
func fatal(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}
