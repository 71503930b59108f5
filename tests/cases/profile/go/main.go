package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"sync"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "served")
	}))
	answer := must(http.Get("http://" + listener.Addr().String()))
	text := must(io.ReadAll(answer.Body))
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {})
	}
	group.Wait()
	child := must(exec.Command("echo", "child").Output())
	links := must(net.Interfaces())
	fmt.Print(string(text), " ", len(links), links[0].Name, " ", runtime.GOMAXPROCS(0), " ", string(child))
}
