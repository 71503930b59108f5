package dev.qila.examples;

import com.google.protobuf.ByteString;
import dev.qila.gateway.v1.StdinChunk;
import dev.qila.gateway.v1.StdinEnd;
import dev.qila.gateway.v1.WriteStdinHeader;
import dev.qila.gateway.v1.WriteStdinRequest;
import dev.qila.gateway.v1.WriteStdinResponse;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import java.io.IOException;
import java.io.InputStream;

/** What the program reads, as far as the gateway has not acknowledged it. */
final class Input {
    private static final int CHUNK_BYTES = 64 << 10;

    private final InputStream source;
    /** Of the first byte of pending. */
    private long offset;
    private ByteString pending = ByteString.EMPTY;
    private boolean ended;

    Input(InputStream source) {
        this.source = source;
    }

    /** Whether the source has no more. */
    boolean hasEnded() {
        return ended;
    }

    /** Sends over one connection: a chunk, when the one before it can no longer be lost; last the end. */
    void sendOver(
            BlockingClientCall<WriteStdinRequest, WriteStdinResponse> call, WriteStdinHeader header, Patience patience)
            throws StatusException, IOException, InterruptedException {
        try {
            call.write(WriteStdinRequest.newBuilder().setHeader(header).build());
            long sent = 0;
            boolean endSent = false;
            // The first answer comes when the program runs, and says from where on.
            for (var answer = call.read(); answer != null; answer = call.read()) {
                patience.progressed();
                accept(answer.getAccepted());
                if (answer.getAccepted() < sent || endSent) {
                    continue;
                }
                WriteStdinRequest request = next();
                call.write(request);
                sent = offset + pending.size();
                endSent = request.hasEnd();
            }
            if (!endSent) {
                throw Status.UNAVAILABLE.withDescription("the stream ended before the input").asException();
            }
        } finally {
            call.cancel("over", null);
        }
    }

    /** Drops what the sandbox holds. */
    private void accept(long accepted) {
        // It may hold more than ours: others can write, too.
        pending = pending.substring((int) Math.min(accepted - offset, pending.size()));
        offset = accepted;
    }

    /** What has to be sent: what is pending, else what the source says next, else the end. */
    private WriteStdinRequest next() throws IOException {
        if (pending.isEmpty() && !ended) {
            byte[] buffer = new byte[CHUNK_BYTES];
            int count = source.read(buffer);
            ended = count < 0;
            pending = ByteString.copyFrom(buffer, 0, Math.max(count, 0));
        }
        if (pending.isEmpty()) {
            var end = StdinEnd.newBuilder().setOffset(offset);
            return WriteStdinRequest.newBuilder().setEnd(end).build();
        }
        var chunk = StdinChunk.newBuilder().setOffset(offset).setData(pending);
        return WriteStdinRequest.newBuilder().setChunk(chunk).build();
    }
}
