package dev.qila.examples;

import dev.qila.gateway.v1.ExecEnded;
import dev.qila.gateway.v1.ExecEvent;
import dev.qila.gateway.v1.Output;
import dev.qila.gateway.v1.Phase;
import dev.qila.gateway.v1.Stream;
import io.grpc.Status;
import io.grpc.StatusException;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.Locale;

/** What a person sees: the program's bytes as they are, everything else as lines on stderr. */
final class Show {
    /** The exit code when Qila failed, rather than the program. */
    static final int QILA_FAILED = 125;
    // System.out would swallow that nobody reads any more.
    private static final OutputStream STDOUT = new FileOutputStream(FileDescriptor.out);
    private static final OutputStream STDERR = new FileOutputStream(FileDescriptor.err);

    private Show() {}

    /** Prints one event. */
    static void event(ExecEvent event) throws IOException {
        switch (event.getEventCase()) {
            case OUTPUT -> output(event.getOutput());
            case PHASE_STARTED -> say(word(event.getPhaseStarted().getPhase(), "PHASE_"));
            case STAGE -> {
                var stage = event.getStage();
                String name = word(stage.getStage(), "INSTALL_STAGE_").toLowerCase(Locale.ROOT);
                say("  %s %d/%d".formatted(name, stage.getDone(), stage.getTotal()));
            }
            case PACKAGE -> {
                var item = event.getPackage();
                String action = word(item.getAction(), "PACKAGE_ACTION_").toLowerCase(Locale.ROOT);
                say("  %s %s %s".formatted(action, item.getName(), item.getVersion()));
            }
            case NOTICE -> say("  " + event.getNotice().getMessage());
            default -> { }
        }
    }

    private static void output(Output output) throws IOException {
        if (output.getPhase() == Phase.PHASE_RUN) {
            output.getData().writeTo(output.getStream() == Stream.STREAM_STDERR ? STDERR : STDOUT);
        }
    }

    /** Answers the exit code that tells how an exec ended, and prints the end if it was not the program's own exit. */
    static int end(ExecEnded ended) {
        switch (ended.getEndCase()) {
            case EXITED:
                return ended.getExited();
            case SIGNALED:
                say("console: killed by signal " + ended.getSignaled());
                return 128 + ended.getSignaled();
            case TIMED_OUT:
                say("console: timed out in " + word(ended.getTimedOut().getPhase(), "PHASE_"));
                return 124;
            case OOM_KILLED:
                say("console: out of memory");
                return 137;
            case CANCELLED:
                say("console: cancelled");
                return 130;
            case INSTALL_FAILED:
                var failed = ended.getInstallFailed();
                say("console: install failed: " + word(failed.getReason(), "INSTALL_FAILURE_REASON_"));
                say(failed.getDetail() + "\n" + String.join("\n", failed.getHintsList()));
                return QILA_FAILED;
            case PLAN_FAILED:
                say("console: " + ended.getPlanFailed().getReason() + ": " + ended.getPlanFailed().getDetail());
                return QILA_FAILED;
            case START_FAILED:
                var failure = ended.getStartFailed();
                say("console: cannot start: " + failure.getError() + " " + failure.getDetail());
                return failure.getError().equals("ENOENT") ? 127 : 126;
            default:
                say("console: " + ended);
                return QILA_FAILED;
        }
    }

    /** Prints a failure: of a call its reason, and the message, which says what to do. */
    static void report(String what, Exception failure) {
        if (!(failure instanceof StatusException refused)) {
            say("console: " + what + failure);
            return;
        }
        Status status = refused.getStatus();
        String reason = Failures.reason(refused);
        if (!reason.isEmpty()) {
            say("console: " + what + reason + ": " + status.getDescription());
        } else if (status.getCode() == Status.Code.CANCELLED) {
            say("console: " + what + "interrupted");
        } else {
            String cause = status.getCause() == null ? "" : ": " + status.getCause().getMessage();
            say("console: " + what + status.getCode() + ": " + status.getDescription() + cause
                    + "; see that the gateway runs at this address");
        }
    }

    /** A line without control characters: what a stranger wrote must not steer the terminal. */
    static void say(String text) {
        System.err.println(text.stripTrailing().replaceAll("[\\p{C}&&[^\n]]", "\ufffd"));
    }

    /** An enum's word without its prefix. */
    private static String word(Enum<?> value, String prefix) {
        return value.name().substring(prefix.length());
    }
}
