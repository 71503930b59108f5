package dev.qila.examples;

import io.grpc.StatusException;
import java.io.IOException;
import java.time.Duration;

/** How long to try again while nothing comes. */
final class Patience {
    private static final Duration LIMIT = Duration.ofMinutes(1);
    private static final Duration PAUSE = Duration.ofMillis(200);

    private long progressedAt = System.nanoTime();

    /** Something came. */
    void progressed() {
        progressedAt = System.nanoTime();
    }

    private boolean isOver() {
        return System.nanoTime() - progressedAt > LIMIT.toNanos();
    }

    /** What is tried over one connection. */
    interface Attempt<T> {
        T make(Patience patience) throws StatusException, IOException, InterruptedException;
    }

    /** Repeats a call that lost its connection, until it has made no progress for too long. */
    static <T> T untilItEnds(Attempt<T> attempt) throws StatusException, IOException, InterruptedException {
        Patience patience = new Patience();
        while (true) {
            try {
                return attempt.make(patience);
            } catch (StatusException failure) {
                if (!Failures.isLost(failure) || patience.isOver()) {
                    throw failure;
                }
            }
            Thread.sleep(PAUSE.toMillis());
        }
    }
}
