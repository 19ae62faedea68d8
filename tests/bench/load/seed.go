package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

const (
	targetCount = 200
	nodeCount   = 50
)

func targetName(i int) string { return fmt.Sprintf("shop-%03d", i%targetCount) }

func profile(name string, i int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"profiling.pyspy.dev/v1alpha1","kind":"PySpyProfile","metadata":{"name":%q},`+
		`"spec":{"target":{"podName":%q},"sampling":{"duration":"5s"}}}`, name, targetName(i))
}

// seed makes the namespaces and the target Pods, which look as if they ran.
func seed(a *api) error {
	for _, name := range []string{namespace, system} {
		_, err := a.create("/api/v1/namespaces", map[string]any{"metadata": map[string]any{"name": name}})
		if err != nil && !isStatus(err, http.StatusConflict) {
			return err
		}
	}
	account := map[string]any{"metadata": map[string]any{"name": "pyspy-runner"}}
	if _, err := a.create("/api/v1/namespaces/"+system+"/serviceaccounts", account); err != nil && !isStatus(err, http.StatusConflict) {
		return err
	}
	return each(targetCount, 16, func(i int) error { return seedTarget(a, i) })
}

// A Pod of a usual size: an application and a proxy, with settings and probes.
func seedTarget(a *api, i int) error {
	settings := []any{}
	for n := range 12 {
		settings = append(settings, map[string]any{"name": fmt.Sprintf("SHOP_SETTING_%d", n), "value": strings.Repeat("value ", 5)})
	}
	probe := map[string]any{"httpGet": map[string]any{"path": "/healthz", "port": 8080}, "periodSeconds": 10}
	limits := map[string]any{"requests": map[string]any{"cpu": "250m", "memory": "256Mi"}, "limits": map[string]any{"memory": "512Mi"}}
	_, err := a.create(targets, map[string]any{
		"metadata": map[string]any{
			"name":        targetName(i),
			"labels":      map[string]any{"app": "shop", "tier": "web", "team": "payments", "pod-template-hash": "7d9f8bc5d4"},
			"annotations": map[string]any{"prometheus.io/scrape": "true", "checksum/config": strings.Repeat("5e", 32)},
		},
		"spec": map[string]any{
			"nodeName": fmt.Sprintf("node-%02d", i%nodeCount),
			"containers": []any{
				map[string]any{"name": "app", "image": "registry.example/shop:1.17", "env": settings, "livenessProbe": probe, "readinessProbe": probe, "resources": limits},
				map[string]any{"name": "proxy", "image": "registry.example/proxy:2.1", "resources": limits},
			},
		},
	})
	if isStatus(err, http.StatusConflict) {
		return nil // from an earlier run on the same API server
	}
	if err != nil {
		return err
	}
	statuses := []any{}
	for n, name := range []string{"app", "proxy"} {
		id := fmt.Sprintf("%064x", 2*i+n)
		statuses = append(statuses, map[string]any{
			"name": name, "image": "registry.example/" + name, "imageID": "sha256:" + id, "containerID": "containerd://" + id,
			"ready": true, "started": true, "restartCount": 0, "state": map[string]any{"running": map[string]any{"startedAt": now()}},
		})
	}
	conditions := []any{}
	for _, kind := range []string{"Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		conditions = append(conditions, map[string]any{"type": kind, "status": "True", "lastTransitionTime": now()})
	}
	_, err = a.patch(targets+"/"+targetName(i)+"/status", map[string]any{"status": map[string]any{
		"phase": "Running", "podIP": fmt.Sprintf("10.2.0.%d", i+1), "startTime": now(), "conditions": conditions, "containerStatuses": statuses,
	}})
	return err
}

// seedFinished makes n profiles in the state in which the operator left the profile called like.
func seedFinished(a *api, like string, n int) error {
	answer, err := a.do("GET", profiles+"/"+like, "", nil)
	if err != nil {
		return err
	}
	var o object
	if err := json.Unmarshal(answer, &o); err != nil {
		return err
	}
	return each(n, 32, func(i int) error {
		name := fmt.Sprintf("finished-%05d", i)
		if _, err := a.create(profiles, profile(name, i)); err != nil {
			return err
		}
		_, err := a.patch(profiles+"/"+name+"/status", map[string]any{"status": o.Status})
		return err
	})
}

// sweep removes what a phase has left, while no operator runs. There is no garbage collector and no kubelet here.
func sweep(a *api) error {
	for _, path := range []string{
		profiles, jobs + "?propagationPolicy=Background", pods + "?gracePeriodSeconds=0", configMaps,
		"/apis/events.k8s.io/v1/namespaces/" + namespace + "/events",
	} {
		if _, err := a.do("DELETE", path, "", nil); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond)
	return nil
}
