// Go's net/http transport. One JSON order per line, one JSON answer per line; see src/http/client.
//
//	http-go <the authority's certificate>
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type order struct {
	Do       string  `json:"do"`
	URL      string  `json:"url"`
	Body     string  `json:"body"`
	Count    int     `json:"count"`
	Tasks    int     `json:"tasks"`
	Requests int64   `json:"requests"`
	WarmUp   float64 `json:"warm_up"`
	Seconds  float64 `json:"seconds"`
}

const (
	warming = iota
	counting
	over
)

// What its documentation has one change for many requests to one host: by default it keeps two connections.
func client(roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns:        100,
		MaxIdleConnsPerHost: 50,
		MaxConnsPerHost:     50,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
		TLSClientConfig:     &tls.Config{RootCAs: roots},
	}}
}

func get(client *http.Client, url string) (int, string, error) {
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

func expect(client *http.Client, o order) error {
	status, body, err := get(client, o.URL)
	if err == nil && (status != 200 || body != o.Body) {
		err = fmt.Errorf("%d: %s", status, body)
	}
	return err
}

// A closed loop, as src/load.rs.
func load(client *http.Client, o order) (any, error) {
	var phase atomic.Int32
	var all sync.WaitGroup
	took, longest := make([][]float64, o.Tasks), make([]float64, o.Tasks)
	failed := make(chan error, o.Tasks)
	for task := 0; task < o.Tasks; task++ {
		all.Add(1)
		go func(task int) {
			defer all.Done()
			for {
				started := time.Now()
				if err := expect(client, o); err != nil {
					failed <- err
					return
				}
				millis := float64(time.Since(started)) / 1e6
				if phase.Load() != warming && millis > longest[task] {
					longest[task] = millis
				}
				switch phase.Load() {
				case counting:
					took[task] = append(took[task], millis)
				case over:
					return
				}
			}
		}(task)
	}
	time.Sleep(time.Duration(o.WarmUp * 1e9))
	phase.Store(counting)
	started, cpu := time.Now(), cpuSeconds()
	time.Sleep(time.Duration(o.Seconds * 1e9))
	phase.Store(over)
	seconds, cpu := time.Since(started).Seconds(), cpuSeconds()-cpu
	all.Wait()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	sorted, served := []float64{}, []int{}
	for _, one := range took {
		sorted, served = append(sorted, one...), append(served, len(one))
	}
	if len(sorted) == 0 {
		return nil, fmt.Errorf("not one operation ended in time")
	}
	sort.Float64s(sorted)
	sort.Float64s(longest)
	return map[string]any{
		"seconds": seconds, "served": served, "cpu_seconds": cpu, "longest": longest[o.Tasks-1],
		"p50": sorted[len(sorted)/2], "p99": sorted[len(sorted)*99/100],
	}, nil
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func failures(client *http.Client, o order) (any, error) {
	var taken atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, o.Requests)
	for task := 0; task < o.Tasks; task++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := taken.Add(1) - 1; number < o.Requests; number = taken.Add(1) - 1 {
				time.Sleep(time.Duration(number*7919%20001) * time.Microsecond)
				if err := expect(client, o); err != nil {
					failed <- err
				}
			}
		}()
	}
	all.Wait()
	result := map[string]any{"requests": o.Requests, "errors": len(failed)}
	if len(failed) > 0 {
		result["first"] = (<-failed).Error()
	}
	return result, nil
}

func cold(client *http.Client, o order) (any, error) {
	done := make(chan error, o.Tasks)
	for task := 0; task < o.Tasks; task++ {
		go func() { done <- expect(client, o) }()
	}
	for task := 0; task < o.Tasks; task++ {
		if err := <-done; err != nil {
			return nil, err
		}
	}
	return map[string]any{"answered": o.Tasks}, nil
}

func obey(roots *x509.CertPool, o order) (any, error) {
	client := client(roots)
	defer client.CloseIdleConnections()
	switch o.Do {
	case "load":
		return load(client, o)
	case "errors":
		return failures(client, o)
	case "cold":
		return cold(client, o)
	}
	answers, millis := []any{}, []float64{}
	for number := 0; number < o.Count; number++ {
		started := time.Now()
		status, body, err := get(client, o.URL)
		if err != nil {
			return nil, err
		}
		millis = append(millis, float64(time.Since(started))/1e6)
		answers = append(answers, []any{status, body})
	}
	return map[string]any{"answers": answers, "millis": millis}, nil
}

func main() {
	roots := x509.NewCertPool()
	authority, err := os.ReadFile(os.Args[1])
	if err != nil || !roots.AppendCertsFromPEM(authority) {
		fmt.Fprintln(os.Stderr, "no certificate in", os.Args[1])
		os.Exit(1)
	}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var o order
		var result any
		err := json.Unmarshal(input.Bytes(), &o)
		if err == nil {
			result, err = obey(roots, o)
		}
		if err != nil {
			result = map[string]string{"error": err.Error()}
		}
		line, _ := json.Marshal(result)
		fmt.Println(string(line))
	}
}
