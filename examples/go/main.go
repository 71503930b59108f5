// Command console runs a program in a Qila sandbox and shows what happens, as it happens.
//
// The program's stdout and stderr come out byte for byte; everything else goes to stderr. Its stdin is the console's,
// Ctrl-C interrupts it, and its exit code is the console's. A lost connection is taken up again where it broke.
package main

//go:generate buf generate ../../protos --path ../../protos/qila/gateway

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	pb "qila.dev/examples/console/gatewayv1"
)

// How long a call that is not a stream may take, and an upload.
const (
	callTimeout   = 2 * time.Minute
	uploadTimeout = 15 * time.Minute
)

// The exit code when Qila failed, rather than the program.
const qilaFailed = 125

func main() {
	keep := flag.Bool("keep", false, "leave the sandbox behind, and print its id")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: console [-keep] ADDRESS FILE|DIR [ARGS...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() < 2 {
		flag.Usage()
		os.Exit(2)
	}
	// A reader of our output that goes away is an error of Write, after which the sandbox is removed.
	signal.Ignore(syscall.SIGPIPE)
	code, err := run(flag.Arg(0), flag.Arg(1), flag.Args()[2:], *keep)
	if err != nil {
		report(err)
		code = qilaFailed
	}
	os.Exit(code)
}

// run takes the program through a sandbox of its own and answers its exit code.
func run(address, path string, args []string, keep bool) (int, error) {
	connection, err := connect(address)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	gateway := pb.NewGatewayServiceClient(connection)

	// From here on a signal ends the console through its clean-up; once the program is started, signals are for it.
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	sandbox, err := create(gateway)
	if err != nil {
		return 0, err
	}
	if keep {
		fmt.Fprintln(os.Stderr, "sandbox", sandbox)
	} else {
		defer remove(gateway, sandbox)
	}
	file, err := upload(ctx, gateway, sandbox, path)
	if err != nil {
		return 0, err
	}
	exec := execution{gateway: gateway, sandboxID: sandbox, execID: newExecID()}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	restore()
	return exec.run(&pb.Program{File: file, Args: args}, signals)
}

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A proxy of the surrounding shell is not for loopback.
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
		}}),
	)
}

// create makes a sandbox. It is not interrupted: an id that nobody heard of could not be removed.
func create(gateway pb.GatewayServiceClient) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, err := gateway.CreateSandbox(ctx, &pb.CreateSandboxRequest{})
	return response.GetSandbox().GetId(), err
}

// remove ends what still runs in the sandbox and removes it with its files.
func remove(gateway pb.GatewayServiceClient, sandbox string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := gateway.RemoveSandbox(ctx, &pb.RemoveSandboxRequest{SandboxId: sandbox}); err != nil {
		report(fmt.Errorf("sandbox %s was not removed: %w", sandbox, err))
	}
}

// newExecID chooses the id of an exec: "ex_" and 26 of [a-z2-7]. Who knows it before the exec is started can start it
// twice without running it twice.
func newExecID() string {
	random := make([]byte, 17)
	rand.Read(random)
	return "ex_" + strings.ToLower(base32.StdEncoding.EncodeToString(random))[:26]
}
