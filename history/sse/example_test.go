package sse_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/sse"
)

// print prints the events of a stream, without ids and times.
func print(resp *http.Response) {
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if s := strings.TrimSpace(lines.Text()); s != "" && !strings.HasPrefix(s, "id:") && !strings.HasPrefix(s, "retry:") {
			fmt.Println(s)
		}
	}
}

// A client gets the whole log, and then what is appended, until the log is
// finished.
func Example() {
	ctx := context.Background()
	log, _ := history.Open(ctx, history.Config{})
	events, err := sse.New(sse.Config{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(events.Handler(log))
	defer server.Close()

	log.Append(ctx, []byte("go build ./..."))
	resp, err := http.Get(server.URL)
	if err != nil {
		panic(err)
	}
	log.Append(ctx, []byte("go test ./...\nok"))
	log.Finish(ctx)
	print(resp)
	// Output:
	// data: go build ./...
	// data: go test ./...
	// data: ok
	// event: end
	// data:
}

// Logs by name, with an answer of the service if there is none.
func ExampleServer_Serve() {
	ctx := context.Background()
	logs, _ := history.NewSet(history.SetConfig{})
	defer logs.Close()
	events, _ := sse.New(sse.Config{Start: func(*http.Request) history.Position { return history.Last(1) }})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /logs/{name}", func(w http.ResponseWriter, r *http.Request) {
		log, release, err := logs.Acquire(r.Context(), r.PathValue("name"))
		if errors.Is(err, history.ErrNotExist) || errors.Is(err, history.ErrName) {
			http.NotFound(w, r)
			return
		}
		if err != nil {
			http.Error(w, "try again later", http.StatusServiceUnavailable)
			return
		}
		defer release()
		events.Serve(w, r, log)
	})
	server := httptest.NewServer(mux)
	defer server.Close()

	build, release, _ := logs.Create(ctx, "build-7")
	build.Append(ctx, []byte("go vet ./..."))
	build.Append(ctx, []byte("go test ./..."))
	build.Finish(ctx)
	release()
	for _, name := range []string{"build-7", "build-8"} {
		resp, err := http.Get(server.URL + "/logs/" + name)
		if err != nil {
			panic(err)
		}
		fmt.Println(name, resp.Status)
		print(resp)
	}
	// Output:
	// build-7 200 OK
	// data: go test ./...
	// event: end
	// data:
	// build-8 404 Not Found
	// 404 page not found
}

// Wrong: a server that waits for its handlers before the log is closed. A
// stream ends only with its log or its client, so Shutdown waits until its
// context ends. Right: close the log first.
func ExampleServer_incorrect() {
	log, _ := history.Open(context.Background(), history.Config{})
	events, _ := sse.New(sse.Config{})
	server := httptest.NewServer(events.Handler(log))
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()

	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	fmt.Println("wrong:", server.Config.Shutdown(impatient))
	log.Close()
	fmt.Println("right:", server.Config.Shutdown(context.Background()))
	// Output:
	// wrong: context canceled
	// right: <nil>
}
