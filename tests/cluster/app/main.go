// The program of the containers of scripts/test-cluster: a server, a client, and a process that does nothing.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = "usage: app serve PORT... | app get URL... | app pause"

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	words := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(words)
	case "get":
		get(words)
	case "pause":
	default:
		fail(usage)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}

// Answers requests to these ports, of both families, with the address that they come from.
func serve(ports []string) {
	for _, port := range ports {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			fail(err)
		}
		go http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
			host, _, _ := net.SplitHostPort(request.RemoteAddr)
			fmt.Fprintln(answer, host)
		}))
	}
}

// Asks for each URL once, prints the answers, and exits with 1 after the first failure.
func get(urls []string) {
	// Late is not lost: on a busy machine, a pod may get no processor time for seconds.
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range urls {
		answer, err := client.Get(url)
		if err != nil {
			fail(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			fail(url, answer.Status, err)
		}
		os.Stdout.Write(body)
	}
	os.Exit(0)
}

func fail(words ...any) {
	fmt.Fprintln(os.Stderr, words...)
	os.Exit(1)
}
