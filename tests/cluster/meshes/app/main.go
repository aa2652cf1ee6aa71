// The application of the mesh suite: it serves, and it calls others and says which of the two proxies took part.
//
//	app serve                          HTTP at 8080 and 9090, a greeting at 3306 and 7777, and at 9999 what of its own Envoy
//	                                   has been used
//	app calls SERVER NAME=WHAT...      makes these calls, one after the other; prints one JSON object. SERVER is the address
//	                                   of the pod whose Envoy is asked too, "" for none. WHAT is get:URL, first:HOST:PORT
//	                                   dig:NAME or dig-tcp:NAME
//	app ask                            reads a line, says what it came to as JSON, and so on: a call, as above, or used:PLACE,
//	                                   what has been used of the Envoy at a URL or behind one of these Unix sockets (a pattern)
//	app load URL                       calls until standard input ends, each time by a new connection; prints how many calls
//	                                   there were, and by their answers the numbers of those that failed
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

const (
	stats   = "/stats?format=json&usedonly&filter=upstream_(cx|rq)_total"
	admin   = "http://127.0.0.1:15000" + stats
	control = "9999"
	timeout = 5 * time.Second
	// A request that is answered late is not lost: on a busy machine, a pod may get no processor time for seconds.
	loadTimeout = time.Minute
)

// What an HTTP request looked like where it arrived.
type echo struct {
	Host   string `json:"host"`   // the pod
	Client string `json:"client"` // the address that the connection came from
	Peer   string `json:"peer"`   // who called, by the certificate that the proxy has seen: Envoy, or Linkerd's
}

func main() {
	arguments := append(os.Args[1:], "")
	switch arguments[0] {
	case "serve":
		serve()
	case "calls":
		calls(os.Args[2], os.Args[3:])
	case "ask":
		ask()
	case "load":
		load(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: app serve|calls|ask|load, see main.go")
		os.Exit(2)
	}
}

var peer = regexp.MustCompile(`URI=([^;,]+)`)

func serve() {
	name, _ := os.Hostname()
	greet := func(connection net.Conn) {
		client, _, _ := net.SplitHostPort(connection.RemoteAddr().String())
		fmt.Fprintf(connection, "%s %s\n", name, client)
		connection.Close()
	}
	for _, port := range []string{"3306", "7777"} {
		listener, err := net.Listen("tcp", ":"+port)
		must(err)
		go func() {
			for {
				connection, err := listener.Accept()
				must(err)
				go greet(connection)
			}
		}()
	}
	go func() { must(http.ListenAndServe(":"+control, http.HandlerFunc(used))) }()
	answer := http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		client, _, _ := net.SplitHostPort(request.RemoteAddr)
		seen := echo{Host: name, Client: client}
		if found := peer.FindStringSubmatch(request.Header.Get("X-Forwarded-Client-Cert")); found != nil {
			seen.Peer = found[1]
		} else {
			seen.Peer = request.Header.Get("L5d-Client-Id")
		}
		must(json.NewEncoder(writer).Encode(seen))
	})
	go func() { must(http.ListenAndServe(":9090", answer)) }()
	must(http.ListenAndServe(":8080", answer))
}

// Hands on what this pod's Envoy answers; without one there is nothing to say.
func used(writer http.ResponseWriter, _ *http.Request) {
	response, err := http.Get(admin)
	if err != nil {
		fmt.Fprint(writer, `{"stats":[]}`)
		return
	}
	defer response.Body.Close()
	io.Copy(writer, response.Body)
}

// As Istio names the clusters of applications, and as Kuma and Consul do.
var counter = regexp.MustCompile(`^cluster\.((?:outbound|inbound)\|.*|\w*(?:Passthrough|BlackHole)Cluster\w*|(?:kri|self)_.*?|` +
	`local_app|original-destination|[\w-]+\.default\.\w+\.internal\.[\w-]+\.consul);?\.upstream_(?:cx|rq)_total$`)

// How often each cluster of an Envoy has been used for applications, by its statistics at this URL.
func clusters(url string) map[string]int {
	counts, _ := count(&http.Transport{DisableKeepAlives: true}, url)
	return counts
}

// The same at a URL, or by the first of these Unix sockets where an Envoy answers: one that has ended leaves its socket
// behind.
func behind(place string) (map[string]int, error) {
	if strings.HasPrefix(place, "http:") {
		return count(&http.Transport{DisableKeepAlives: true}, place+stats)
	}
	paths, err := filepath.Glob(place)
	for _, path := range paths {
		transport := http.Transport{DisableKeepAlives: true}
		transport.DialContext = func(within context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(within, "unix", path)
		}
		var counts map[string]int
		if counts, err = count(&transport, "http://envoy"+stats); err == nil {
			return counts, nil
		}
	}
	return nil, fmt.Errorf("no Envoy answers at %s: %w", place, err)
}

func count(transport *http.Transport, url string) (map[string]int, error) {
	counts := map[string]int{}
	client := http.Client{Timeout: loadTimeout, Transport: transport}
	response, err := client.Get(url)
	if err != nil {
		return counts, err
	}
	defer response.Body.Close()
	var answer struct {
		Stats []struct {
			Name  string
			Value int
		}
	}
	json.NewDecoder(response.Body).Decode(&answer)
	for _, stat := range answer.Stats {
		if found := counter.FindStringSubmatch(stat.Name); found != nil {
			counts[strings.TrimSuffix(found[1], ";")] += stat.Value
		}
	}
	return counts, nil
}

func difference(before, after map[string]int) []string {
	changed := []string{}
	for name, count := range after {
		if count != before[name] {
			changed = append(changed, name)
		}
	}
	sort.Strings(changed)
	return changed
}

type outcome struct {
	Answer string   `json:"answer"`
	Own    []string `json:"own"`    // the clusters of the caller's Envoy that it used
	Server []string `json:"server"` // those of the server's
}

func calls(server string, words []string) {
	remote := func() map[string]int {
		if server == "" {
			return nil
		}
		return clusters("http://" + net.JoinHostPort(server, control))
	}
	outcomes := map[string]outcome{}
	for _, word := range words {
		name, what, _ := strings.Cut(word, "=")
		own, other := clusters(admin), remote()
		answer := call(what)
		outcomes[name] = outcome{answer, difference(own, clusters(admin)), difference(other, remote())}
	}
	must(json.NewEncoder(os.Stdout).Encode(outcomes))
}

func ask() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var answer any
		if place, found := strings.CutPrefix(lines.Text(), "used:"); found {
			counts, err := behind(place)
			must(err)
			answer = counts
		} else {
			answer = call(lines.Text())
		}
		must(json.NewEncoder(os.Stdout).Encode(answer))
	}
}

func call(what string) string {
	kind, target, _ := strings.Cut(what, ":")
	switch kind {
	case "get":
		answer, _ := get(target, timeout)
		return answer
	case "first":
		connection, err := net.DialTimeout("tcp", target, timeout)
		if err != nil {
			return failure(err)
		}
		defer connection.Close()
		connection.SetDeadline(time.Now().Add(timeout))
		greeting, err := io.ReadAll(connection)
		if err != nil {
			return failure(err)
		}
		if len(greeting) == 0 {
			return "closed"
		}
		return strings.TrimSpace(string(greeting))
	case "dig", "dig-tcp":
		resolver := net.Resolver{PreferGo: true, Dial: func(within context.Context, protocol, address string) (net.Conn, error) {
			if kind == "dig-tcp" {
				protocol = "tcp"
			}
			return new(net.Dialer).DialContext(within, protocol, address)
		}}
		within, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		addresses, err := resolver.LookupHost(within, target)
		if err != nil {
			return failure(err)
		}
		sort.Strings(addresses)
		return strings.Join(addresses, " ")
	}
	return "no such call"
}

// The answer of an application, or a status code and the text that a proxy sent with it.
func get(url string, timeout time.Duration) (answer, text string) {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return failure(err), ""
	}
	defer response.Body.Close()
	var seen echo
	body, _ := io.ReadAll(response.Body)
	if json.Unmarshal(body, &seen) != nil || seen.Host == "" {
		return fmt.Sprint(response.StatusCode), string(body)
	}
	return fmt.Sprintf("%d %s from %s %s", response.StatusCode, seen.Host, seen.Client, seen.Peer), ""
}

// The kind of failure, without what differs between two runs.
func failure(err error) string {
	text := err.Error()
	for _, kind := range []string{"connection refused", "connection reset", "timeout", "no such host", "EOF", "unreachable", "server closed"} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(kind)) {
			return kind
		}
	}
	return text
}

func load(url string) {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	requests, failed := 0, map[string][]int{}
	for {
		select {
		case <-ended:
			must(json.NewEncoder(os.Stdout).Encode(map[string]any{"requests": requests, "failed": failed}))
			return
		case <-time.After(100 * time.Millisecond):
			requests++
			if answer, text := get(url, loadTimeout); !strings.HasPrefix(answer, "200 ") {
				answer = strings.TrimSpace(answer + " " + text)
				failed[answer] = append(failed[answer], requests)
			}
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
