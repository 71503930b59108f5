package dev.qila.examples;

import dev.qila.gateway.v1.AttachExecRequest;
import dev.qila.gateway.v1.CancelExecRequest;
import dev.qila.gateway.v1.ExecEnded;
import dev.qila.gateway.v1.ExecEvent;
import dev.qila.gateway.v1.ExecRequest;
import dev.qila.gateway.v1.Phase;
import dev.qila.gateway.v1.Program;
import dev.qila.gateway.v1.SignalExecRequest;
import dev.qila.gateway.v1.Stream;
import dev.qila.gateway.v1.WriteStdinHeader;
import io.grpc.Status;
import io.grpc.StatusException;
import java.io.IOException;
import java.security.SecureRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;

/** One exec: started once, watched to its end, whatever happens to the connection. */
final class Execution {
    /** The gateway tells a heartbeat every 15 seconds: longer silence is a lost connection. */
    private static final long SILENCE_LIMIT_SECONDS = 45;
    private static final int SIGINT = 2;

    private final GatewayCalls gateway;
    private final String sandbox;
    private final String id = newId();
    private final AttachExecRequest.Builder position;

    Execution(GatewayCalls gateway, String sandbox) {
        this.gateway = gateway;
        this.sandbox = sandbox;
        position = AttachExecRequest.newBuilder().setSandboxId(sandbox).setExecId(id);
    }

    /** Starts the program, shows it to its end, and answers its exit code. */
    int run(Program program) throws StatusException, IOException, InterruptedException {
        start(program);
        Thread input = new Thread(this::forwardStdin, "stdin");
        input.setDaemon(true);
        input.start();
        return Show.end(Patience.untilItEnds(this::watch));
    }

    /** Returns when the exec is there. A repeat with the same id and request finds it instead of starting another. */
    private void start(Program program) throws StatusException, IOException, InterruptedException {
        ExecRequest request = ExecRequest.newBuilder()
                .setSandboxId(sandbox).setExecId(id).setProgram(program).setStdin(true).setDetach(true).build();
        Patience.untilItEnds(patience -> {
            var call = gateway.exec(request);
            while (call.read() != null) {
                // Only `created` comes.
            }
            return null;
        });
    }

    /** Shows the events behind the position, and moves it, until the exec ends or the connection is lost. */
    private ExecEnded watch(Patience patience) throws StatusException, IOException, InterruptedException {
        var call = gateway.attachExec(position.build());
        try {
            for (var response = call.read(SILENCE_LIMIT_SECONDS, TimeUnit.SECONDS); response != null;
                    response = call.read(SILENCE_LIMIT_SECONDS, TimeUnit.SECONDS)) {
                patience.progressed();
                ExecEvent event = response.getEvent();
                Show.event(event);
                advance(event);
                if (event.hasEnded()) {
                    return event.getEnded();
                }
            }
        } catch (TimeoutException silence) {
            throw Status.UNAVAILABLE.withDescription("the gateway fell silent").asException();
        } finally {
            call.cancel("no longer watched", null);
        }
        throw Status.UNAVAILABLE.withDescription("the stream ended before the exec").asException();
    }

    /** Moves the position behind an event that was shown. */
    private void advance(ExecEvent event) {
        var output = event.getOutput();
        if (output.getPhase() == Phase.PHASE_RUN) {
            // Output of the run has no sequence: its place is its offset.
            long next = output.getOffset() + output.getData().size();
            if (output.getStream() == Stream.STREAM_STDERR) {
                position.getFromBuilder().setStderr(next);
            } else {
                position.getFromBuilder().setStdout(next);
            }
        } else if (event.getSequence() > 0) {
            position.setAfterSequence(event.getSequence());
        }
    }

    /** Sends the console's stdin to the program, and then its end. */
    private void forwardStdin() {
        Input input = new Input(System.in);
        WriteStdinHeader header = WriteStdinHeader.newBuilder().setSandboxId(sandbox).setExecId(id).build();
        try {
            Patience.untilItEnds(patience -> {
                input.sendOver(gateway.writeStdin(), header, patience);
                return null;
            });
        } catch (StatusException failure) {
            // STDIN_ENDED: the connection was lost between the end and its acknowledgement.
            if (!(input.hasEnded() && Failures.reason(failure).equals("STDIN_ENDED"))) {
                reportUnlessEnded("not all of the input was sent: ", failure);
            }
        } catch (IOException | InterruptedException failure) {
            Show.report("not all of the input was sent: ", failure);
        }
    }

    /** Gives the program an interrupt; before it runs, and for SIGTERM, the exec is cancelled instead. */
    void pass(String signal) {
        try {
            if (!signal.equals("INT") || !interrupt()) {
                gateway.cancelExec(CancelExecRequest.newBuilder().setSandboxId(sandbox).setExecId(id).build());
            }
        } catch (StatusException failure) {
            reportUnlessEnded("", failure);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    /** False if there is no program yet. */
    private boolean interrupt() throws StatusException, InterruptedException {
        try {
            gateway.signalExec(
                    SignalExecRequest.newBuilder().setSandboxId(sandbox).setExecId(id).setSignal(SIGINT).build());
            return true;
        } catch (StatusException failure) {
            if (Failures.reason(failure).equals("EXEC_NOT_RUNNING")) {
                return false;
            }
            throw failure;
        }
    }

    /** Leaves out that a program was gone before it could be reached. */
    private static void reportUnlessEnded(String what, StatusException failure) {
        if (!Failures.reason(failure).equals("EXEC_ENDED")) {
            Show.report(what, failure);
        }
    }

    /**
     * "ex_" and 26 of [a-z2-7]. Who knows the id before the exec is started can start it twice without running it
     * twice.
     */
    private static String newId() {
        return new SecureRandom().ints(26, 0, 32)
                .mapToObj(index -> "abcdefghijklmnopqrstuvwxyz234567".substring(index, index + 1))
                .collect(Collectors.joining("", "ex_", ""));
    }
}
