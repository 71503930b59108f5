package qila;

import java.io.IOException;
import java.util.LinkedHashSet;
import java.util.Set;
import org.eclipse.aether.collection.DependencyCollectionException;
import org.eclipse.aether.collection.UnsolvableVersionConflictException;
import org.eclipse.aether.resolution.ArtifactDescriptorException;
import org.eclipse.aether.resolution.ArtifactResolutionException;
import org.eclipse.aether.transfer.ArtifactNotFoundException;
import org.eclipse.aether.transfer.ArtifactTransferException;
import org.eclipse.aether.transfer.ChecksumFailureException;

/** What goes wrong, as lines that begin with `error:` and the kind of failure. */
final class Failures {
    private static final int MAX_CAUSES = 20;

    private Failures() {}

    /** A failure whose kind is known. */
    static final class Failure extends IOException {
        private static final long serialVersionUID = 1;
        final String kind;

        Failure(String kind, String message) {
            super(message);
            this.kind = kind;
        }
    }

    /** Work that may fail. */
    interface Work {
        void run() throws Exception;
    }

    /** Ends the process: 0, or 1 with the words of the failure and of its causes. */
    static void guard(Work work) {
        int code = 0;
        try {
            work.run();
        } catch (Exception error) {
            tell(error);
            code = 1;
        }
        System.out.flush();
        // Threads that still wait for a connection hold nobody up.
        Runtime.getRuntime().halt(code);
    }

    private static void tell(Throwable error) {
        Set<String> messages = new LinkedHashSet<>();
        String kind = "other";
        Throwable cause = error;
        for (int depth = 0; cause != null && depth < MAX_CAUSES; depth++) {
            String found = kindOf(cause);
            kind = found.isEmpty() ? kind : found;
            String message = cause.getMessage() == null ? cause.getClass().getSimpleName() : cause.getMessage();
            if (messages.stream().noneMatch(known -> known.contains(message))) {
                messages.add(message);
            }
            cause = cause.getCause();
        }
        for (String message : messages) {
            System.err.println("error: " + kind + ": " + message.strip().replace("\n", "\nerror: " + kind + ": "));
        }
        System.err.flush();
    }

    /** The kind of one cause; the last one that has a kind, the innermost, decides. */
    private static String kindOf(Throwable cause) {
        if (cause instanceof Failure failure) {
            return failure.kind;
        }
        if (cause instanceof Door.RefusedException refused) {
            return refused.status == 404 || refused.status == 410 ? "not-found" : "refused";
        }
        if (cause instanceof UnsolvableVersionConflictException) {
            return "conflict";
        }
        if (cause instanceof ArtifactNotFoundException) {
            return "not-found";
        }
        if (cause instanceof ChecksumFailureException) {
            return "hash";
        }
        if (cause instanceof ArtifactTransferException) {
            return "transfer";
        }
        boolean model = cause.getClass().getSimpleName().startsWith("ModelBuilding");
        boolean outer = cause instanceof ArtifactDescriptorException || cause instanceof DependencyCollectionException
                || cause instanceof ArtifactResolutionException;
        return model ? "pom" : outer ? "solve" : "";
    }
}
