package dev.qila.examples;

import dev.qila.gateway.v1.CreateSandboxRequest;
import dev.qila.gateway.v1.Program;
import dev.qila.gateway.v1.RemoveSandboxRequest;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusException;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import sun.misc.Signal;

/**
 * Runs a program in a Qila sandbox and shows what happens, as it happens.
 *
 * <p>The program's stdout and stderr come out byte for byte; everything else goes to stderr. Its stdin is the
 * console's, Ctrl-C interrupts it, and its exit code is the console's. A lost connection is taken up again where it
 * broke.
 */
final class Console {
    private final GatewayCalls gateway;
    private final Context.CancellableContext setUp = Context.current().withCancellation();
    /** Before the program is started, a signal ends the console through its clean-up; later it is for the program. */
    private final AtomicReference<Consumer<String>> pass = new AtomicReference<>(name -> setUp.cancel(null));

    private Console(Channel channel) {
        gateway = new GatewayCalls(channel);
    }

    public static void main(String[] words) {
        boolean keep = words.length > 0 && words[0].equals("--keep");
        List<String> arguments = List.of(words).subList(keep ? 1 : 0, words.length);
        if (arguments.size() < 2) {
            Show.say("usage: console.jar [--keep] ADDRESS FILE|DIR [ARGS...]");
            System.exit(2);
        }
        int code;
        try {
            // A proxy of the surrounding shell is not for loopback.
            Channel channel = ManagedChannelBuilder.forTarget(arguments.get(0))
                    .usePlaintext().proxyDetector(address -> null).build();
            Console console = new Console(channel);
            code = console.run(Path.of(arguments.get(1)), arguments.subList(2, arguments.size()), keep);
        } catch (Exception failure) {
            Show.report("", failure);
            code = Show.QILA_FAILED;
        }
        // A read of stdin may still be waiting.
        System.exit(code);
    }

    /** Takes the program through a sandbox of its own and answers its exit code. */
    private int run(Path path, List<String> arguments, boolean keep) throws Exception {
        Signal.handle(new Signal("INT"), signal -> pass.get().accept(signal.getName()));
        Signal.handle(new Signal("TERM"), signal -> pass.get().accept(signal.getName()));
        // Not interrupted: an id that nobody heard of could not be removed.
        String sandbox = gateway.createSandbox(CreateSandboxRequest.getDefaultInstance()).getSandbox().getId();
        if (keep) {
            Show.say("sandbox " + sandbox);
        }
        try {
            String file = setUp.call(() -> new Upload(gateway, sandbox).of(path));
            Execution execution = new Execution(gateway, sandbox);
            pass.set(execution::pass);
            if (setUp.isCancelled()) {
                throw Status.CANCELLED.asException();
            }
            return execution.run(Program.newBuilder().setFile(file).addAllArgs(arguments).build());
        } finally {
            if (!keep) {
                remove(sandbox);
            }
        }
    }

    /** Ends what still runs in the sandbox and removes it with its files. */
    private void remove(String sandbox) throws InterruptedException {
        try {
            gateway.removeSandbox(RemoveSandboxRequest.newBuilder().setSandboxId(sandbox).build());
        } catch (StatusException failure) {
            Show.report("sandbox " + sandbox + " was not removed: ", failure);
        }
    }
}
