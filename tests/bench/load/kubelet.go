package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// How long a made-up run takes between the Pod's start and the upload: enough for an operator to write Running.
const samplingTime = 100 * time.Millisecond

// kubelet plays Job controller, kubelet and runner for one Job at a time of each of its slots: every write that they
// make on the way of a Job that goes well, and the upload as the runner does it.
type kubelet struct {
	api    *api
	slots  chan struct{}
	tries  atomic.Int64 // uploads, tried again ones among them
	stored atomic.Int64
}

func newKubelet(a *api) *kubelet { return &kubelet{api: a, slots: make(chan struct{}, 64)} }

type jobSpec struct {
	Template struct {
		Metadata struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec map[string]any `json:"spec"`
	} `json:"template"`
}

type task struct {
	UploadURL string `json:"uploadURL"`
	CA        string `json:"ca"`
}

func taskOf(spec map[string]any) (t task, err error) {
	containers, _ := spec["containers"].([]any)
	for _, c := range containers {
		variables, _ := c.(map[string]any)["env"].([]any)
		for _, v := range variables {
			variable, _ := v.(map[string]any)
			if text, ok := variable["value"].(string); ok && variable["name"] == "PYSPY_TASK" {
				return t, json.Unmarshal([]byte(text), &t)
			}
		}
	}
	return t, fmt.Errorf("the Job has no PYSPY_TASK")
}

// run does it all and returns when the Job's status says Complete.
func (k *kubelet) run(job *object) error {
	k.slots <- struct{}{}
	defer func() { <-k.slots }()
	var spec jobSpec
	if err := json.Unmarshal(job.Spec, &spec); err != nil {
		return err
	}
	what, err := taskOf(spec.Template.Spec)
	if err != nil {
		return err
	}
	pod, err := k.startPod(job, &spec)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(samplingTime)
	summary := map[string]any{
		"version": 1, "reason": "", "message": "", "container": "app", "engine": "PySpy", "accuracy": "GILOnly",
		"startTime": began.UTC().Format(time.RFC3339), "endTime": time.Now().UTC().Format(time.RFC3339),
		"samples": 500, "errors": 0, "late": 0, "expected": 500,
		"processes": []any{map[string]any{"hostPID": 4711, "pid": 1, "command": "python app.py", "pythonVersion": "3.11.2", "samples": 500, "errors": 0, "late": 0}},
		"cost":      map[string]any{"cpuSeconds": "0.41", "maxMemoryBytes": 7340032},
	}
	if what.UploadURL != "" {
		if summary["receipt"], err = k.upload(pod, &what); err != nil {
			return err
		}
	}
	return k.finish(job, pod, summary)
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

func (k *kubelet) startPod(job *object, spec *jobSpec) (*object, error) {
	name := job.Metadata.Name + "-bench"
	answer, err := k.api.create(pods, map[string]any{
		"metadata": map[string]any{
			"name": name, "labels": spec.Template.Metadata.Labels, "annotations": spec.Template.Metadata.Annotations,
			"ownerReferences": []any{map[string]any{"apiVersion": "batch/v1", "kind": "Job", "name": job.Metadata.Name, "uid": job.Metadata.UID, "controller": true}},
		},
		"spec": spec.Template.Spec,
	})
	if err != nil {
		return nil, err
	}
	pod := &object{}
	if err := json.Unmarshal(answer, pod); err != nil {
		return nil, err
	}
	_, err = k.api.patch(jobs+"/"+job.Metadata.Name+"/status", map[string]any{
		"status": map[string]any{"startTime": now(), "active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": map[string]any{}},
	})
	if err != nil {
		return nil, err
	}
	return pod, k.podStatus(pod, "Running", map[string]any{"running": map[string]any{"startedAt": now()}})
}

func (k *kubelet) podStatus(pod *object, phase string, state map[string]any) error {
	id := pod.Metadata.UID
	conditions := []any{}
	for _, kind := range []string{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		conditions = append(conditions, map[string]any{"type": kind, "status": "True", "lastTransitionTime": now()})
	}
	_, err := k.api.patch(pods+"/"+pod.Metadata.Name+"/status", map[string]any{"status": map[string]any{
		"phase": phase, "startTime": now(), "hostIP": "10.0.0.1", "podIP": "10.1.0.1", "podIPs": []any{map[string]any{"ip": "10.1.0.1"}}, "conditions": conditions,
		"containerStatuses": []any{map[string]any{
			"name": "runner", "image": "localhost/pyspy-runner:dev", "imageID": "sha256:" + id, "containerID": "containerd://" + id,
			"ready": phase == "Running", "started": phase == "Running", "restartCount": 0, "state": state,
		}},
	}})
	return err
}

// upload hands in one small result: a token bound to the Pod, a connection of its own, the task's authority.
func (k *kubelet) upload(pod *object, what *task) (json.RawMessage, error) {
	answer, err := k.api.create(tokens, map[string]any{"spec": map[string]any{
		"audiences": []string{"pyspy-results"}, "expirationSeconds": 7200,
		"boundObjectRef": map[string]any{"apiVersion": "v1", "kind": "Pod", "name": pod.Metadata.Name, "uid": pod.Metadata.UID},
	}})
	if err != nil {
		return nil, err
	}
	var token struct{ Status struct{ Token string } }
	if err := json.Unmarshal(answer, &token); err != nil {
		return nil, err
	}
	picture := "<svg xmlns=\"http://www.w3.org/2000/svg\">" + strings.Repeat("<g><title>handle (app.py:42)</title></g>\n", 50) + "</svg>\n"
	sum := sha256.Sum256([]byte(picture))
	body, err := json.Marshal(map[string]any{"version": 1, "files": []any{map[string]any{
		"format": "flamegraph", "key": "flamegraph.svg", "mediaType": "image/svg+xml", "sizeBytes": len(picture),
		"sha256": hex.EncodeToString(sum[:]), "content": picture,
	}}})
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(what.CA))
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
	}}
	for try := 0; ; try++ {
		receipt, status, err := post(client, what.UploadURL, token.Status.Token, body)
		k.tries.Add(1)
		if err == nil && status == http.StatusOK {
			k.stored.Add(1)
			return receipt, nil
		}
		if err == nil {
			err = fmt.Errorf("upload: %d %s", status, receipt)
		}
		if (status >= 400 && status < 500) || try == 10 {
			return nil, err
		}
		time.Sleep(500 * time.Millisecond) // the runner's first back-off
	}
}

func post(client *http.Client, url, token string, body []byte) (json.RawMessage, int, error) {
	request, err := http.NewRequest("POST", url, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return answer, response.StatusCode, err
}

// finish writes what the kubelet and the Job controller write when the container has ended.
func (k *kubelet) finish(job, pod *object, summary map[string]any) error {
	message, err := json.Marshal(summary)
	if err != nil {
		return err
	}
	if len(message) > 4096 {
		return fmt.Errorf("a termination message of %d bytes", len(message))
	}
	err = k.podStatus(pod, "Succeeded", map[string]any{"terminated": map[string]any{
		"exitCode": 0, "reason": "Completed", "message": string(message), "startedAt": now(), "finishedAt": now(), "containerID": "containerd://" + pod.Metadata.UID,
	}})
	if err != nil {
		return err
	}
	conditions := []any{}
	for _, kind := range []string{"SuccessCriteriaMet", "Complete"} {
		conditions = append(conditions, map[string]any{"type": kind, "status": "True", "reason": "CompletionsReached", "lastProbeTime": now(), "lastTransitionTime": now()})
	}
	_, err = k.api.patch(jobs+"/"+job.Metadata.Name+"/status", map[string]any{"status": map[string]any{
		"active": 0, "succeeded": 1, "completionTime": now(), "conditions": conditions,
	}})
	return err
}
