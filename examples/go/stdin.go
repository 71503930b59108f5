package main

import (
	"context"
	"fmt"
	"io"

	pb "qila.dev/examples/console/gatewayv1"
)

// input is what the program reads, as far as the gateway has not acknowledged it.
type input struct {
	source io.Reader
	// Of the first byte of pending.
	offset  uint64
	pending []byte
	ended   bool
}

// forwardStdin sends a reader's bytes to the program, and then their end.
func (e *execution) forwardStdin(ctx context.Context, source io.Reader) {
	in := &input{source: source}
	err := untilPatienceEnds(func(progressed func()) error { return e.writeStdin(ctx, in, progressed) })
	if in.ended && reasonOf(err) == "STDIN_ENDED" {
		// The connection was lost between the end and its acknowledgement.
		return
	}
	if err != nil {
		reportUnlessEnded(ctx, fmt.Errorf("not all of the input was sent: %w", err))
	}
}

// writeStdin sends over one connection: a chunk, when the one before it can no longer be lost.
func (e *execution) writeStdin(ctx context.Context, in *input, progressed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.gateway.WriteStdin(ctx)
	if err != nil {
		return err
	}
	header := &pb.WriteStdinHeader{SandboxId: e.sandboxID, ExecId: e.execID}
	// Why a Send fails is told by Recv.
	stream.Send(&pb.WriteStdinRequest{Part: &pb.WriteStdinRequest_Header{Header: header}})
	sent, endSent := uint64(0), false
	for {
		// The first answer comes when the program runs, and says from where on.
		answer, err := stream.Recv()
		if err == io.EOF && endSent {
			return nil
		}
		if err != nil {
			return err
		}
		progressed()
		in.accept(answer.GetAccepted())
		if answer.GetAccepted() < sent || endSent {
			continue
		}
		stream.Send(in.next())
		sent, endSent = in.offset+uint64(len(in.pending)), in.ended && len(in.pending) == 0
	}
}

// accept drops what the sandbox holds.
func (in *input) accept(offset uint64) {
	// It may hold more than ours: others can write, too.
	in.pending = in.pending[min(offset-in.offset, uint64(len(in.pending))):]
	in.offset = offset
}

// next is what has to be sent: what is pending, else what the source says next, else the end.
func (in *input) next() *pb.WriteStdinRequest {
	if len(in.pending) == 0 && !in.ended {
		buffer := make([]byte, chunkBytes)
		count, err := in.source.Read(buffer)
		in.pending, in.ended = buffer[:count], err != nil
	}
	if len(in.pending) == 0 {
		return &pb.WriteStdinRequest{Part: &pb.WriteStdinRequest_End{End: &pb.StdinEnd{Offset: in.offset}}}
	}
	chunk := &pb.StdinChunk{Offset: in.offset, Data: in.pending}
	return &pb.WriteStdinRequest{Part: &pb.WriteStdinRequest_Chunk{Chunk: chunk}}
}
