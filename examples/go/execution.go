package main

import (
	"context"
	"os"
	"syscall"
	"time"

	pb "qila.dev/examples/console/gatewayv1"
)

const (
	// How long to try again while nothing comes, and how long to wait between two tries.
	patience   = time.Minute
	retryPause = 200 * time.Millisecond
	// The gateway tells a heartbeat every 15 seconds: longer silence is a lost connection.
	silenceLimit = 45 * time.Second
)

// execution is one exec, known by an id that this client chose.
type execution struct {
	gateway   pb.GatewayServiceClient
	sandboxID string
	execID    string
}

// run starts the program, shows it to its end, and answers its exit code. Interrupts are passed on to it.
func (e *execution) run(program *pb.Program, signals <-chan os.Signal) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := e.start(ctx, program); err != nil {
		return 0, err
	}
	go e.forwardStdin(ctx, os.Stdin)
	go func() {
		for number := range signals {
			e.pass(ctx, number)
		}
	}()
	ended, err := e.follow(ctx)
	if err != nil {
		return 0, err
	}
	return showEnd(ended), nil
}

// start returns when the exec is there. A repeat with the same id and request finds it instead of starting another.
func (e *execution) start(ctx context.Context, program *pb.Program) error {
	request := &pb.ExecRequest{
		SandboxId: e.sandboxID,
		ExecId:    e.execID,
		What:      &pb.ExecRequest_Program{Program: program},
		Stdin:     true,
		Detach:    true,
	}
	return untilPatienceEnds(func(func()) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		stream, err := e.gateway.Exec(ctx, request)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	})
}

// follow shows the exec's events to the last, whatever happens to the connection.
func (e *execution) follow(ctx context.Context) (ended *pb.ExecEnded, err error) {
	position := &pb.AttachExecRequest{SandboxId: e.sandboxID, ExecId: e.execID, From: &pb.OutputOffsets{}}
	err = untilPatienceEnds(func(progressed func()) (err error) {
		ended, err = e.watch(ctx, position, progressed)
		return err
	})
	return ended, err
}

// watch shows the events behind the position, and moves it, until the exec ends or the connection is lost.
func (e *execution) watch(
	ctx context.Context, position *pb.AttachExecRequest, progressed func(),
) (*pb.ExecEnded, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(silenceLimit, cancel)
	defer silence.Stop()
	stream, err := e.gateway.AttachExec(ctx, position)
	if err != nil {
		return nil, err
	}
	for {
		silence.Reset(silenceLimit)
		response, err := stream.Recv()
		// Whoever reads our output may take his time.
		silence.Stop()
		if err != nil {
			return nil, err
		}
		progressed()
		event := response.GetEvent()
		if err := show(event); err != nil {
			return nil, err
		}
		advance(position, event)
		if ended := event.GetEnded(); ended != nil {
			return ended, nil
		}
	}
}

// advance moves the position behind an event that was shown.
func advance(position *pb.AttachExecRequest, event *pb.ExecEvent) {
	// Heartbeats and output of the run have no sequence: its place is its offset.
	position.AfterSequence = max(position.AfterSequence, event.GetSequence())
	output := event.GetOutput()
	if output.GetPhase() != pb.Phase_PHASE_RUN {
		return
	}
	next := output.GetOffset() + uint64(len(output.GetData()))
	if output.GetStream() == pb.Stream_STREAM_STDERR {
		position.From.Stderr = next
	} else {
		position.From.Stdout = next
	}
}

// pass gives the program an interrupt; before it runs, and for SIGTERM, the exec is cancelled instead.
func (e *execution) pass(ctx context.Context, number os.Signal) {
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if number == os.Interrupt {
		request := &pb.SignalExecRequest{SandboxId: e.sandboxID, ExecId: e.execID, Signal: uint32(syscall.SIGINT)}
		_, err := e.gateway.SignalExec(limited, request)
		if reasonOf(err) != "EXEC_NOT_RUNNING" {
			reportUnlessEnded(ctx, err)
			return
		}
	}
	_, err := e.gateway.CancelExec(limited, &pb.CancelExecRequest{SandboxId: e.sandboxID, ExecId: e.execID})
	reportUnlessEnded(ctx, err)
}

// untilPatienceEnds repeats a call that lost its connection, until it has made no progress for too long.
func untilPatienceEnds(call func(progressed func()) error) error {
	deadline := time.Now().Add(patience)
	for {
		err := call(func() { deadline = time.Now().Add(patience) })
		if !isLost(err) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(retryPause)
	}
}
