package qila;

import java.io.IOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;
import java.util.zip.ZipFile;

/**
 * Compiles a program's sources, unless that has been done, and prints the directory of its classes.
 *
 * <p>Usage: Compile CACHE SOURCES CLASSPATH ENVIRONMENT OPTIONS
 *
 * <p>SOURCES are files and directories, with colons between them, and OPTIONS javac's, with spaces. What is compiled lies
 * in CACHE under a digest of all that decides it. Of an earlier state of the same program, only what changed is compiled
 * again, and what may depend on that.
 */
final class Compile {
    private static final int KEPT = 16;
    private static final String PROCESSORS = "META-INF/services/javax.annotation.processing.Processor";

    private Compile() {}

    public static void main(String[] arguments) throws IOException {
        Path cache = Path.of(arguments[0]);
        State.Header header = new State.Header(arguments[1], arguments[3], arguments[4]);
        Map<String, Sources.Source> sources = Sources.read(header.sources());
        Path place = cache.resolve(Sources.digest(header, sources));
        if (!Files.exists(place.resolve(State.NAME)) && !make(cache, place, header, sources, arguments[2])) {
            System.exit(1);
        }
        System.out.println(place.resolve(State.CLASSES));
    }

    /** Whether it could be compiled; javac has said why not. */
    private static boolean make(
            Path cache, Path place, State.Header header, Map<String, Sources.Source> sources, String classpath)
            throws IOException {
        Files.createDirectories(cache);
        Path made = Files.createTempDirectory(cache, "new-");
        try {
            if (!compile(cache, made, header, sources, classpath)) {
                return false;
            }
            publish(made, place);
        } finally {
            remove(made);
        }
        removeOld(cache, place);
        return true;
    }

    private static boolean compile(
            Path cache, Path made, State.Header header, Map<String, Sources.Source> sources, String classpath)
            throws IOException {
        Path classes = Files.createDirectory(made.resolve(State.CLASSES));
        State base = hasProcessors(classpath) ? null : State.latest(cache, header);
        Set<String> changed = new LinkedHashSet<>(sources.keySet());
        Map<String, List<String>> written = new TreeMap<>();
        if (base != null) {
            changed = Sources.affected(base, sources);
            written.putAll(base.take(classes, sources.keySet(), changed));
        }
        if (!changed.isEmpty()) {
            Map<String, List<String>> now =
                    Compiler.run(List.copyOf(changed), classes, classes + ":" + classpath, header.options());
            if (now == null) {
                return false;
            }
            written.putAll(now);
        }
        State.write(made, header, sources, written);
        return true;
    }

    /** What a processor generates may depend on every source. */
    private static boolean hasProcessors(String classpath) {
        for (String entry : classpath.split(":")) {
            if (entry.endsWith(".jar")) {
                try (ZipFile jar = new ZipFile(entry)) {
                    if (jar.getEntry(PROCESSORS) != null) {
                        return true;
                    }
                } catch (IOException error) {
                    return true;
                }
            }
        }
        return false;
    }

    /** Another process may have compiled the same meanwhile. */
    private static void publish(Path made, Path place) throws IOException {
        try {
            Files.move(made, place);
        } catch (FileAlreadyExistsException | java.nio.file.DirectoryNotEmptyException error) {
            if (!Files.exists(place.resolve(State.NAME))) {
                throw error;
            }
        }
    }

    private static void removeOld(Path cache, Path current) throws IOException {
        List<Path> places = new ArrayList<>();
        try (Stream<Path> found = Files.list(cache)) {
            found.filter(path -> !path.equals(current)).forEach(places::add);
        }
        places.sort(Comparator.comparing((Path path) -> path.toFile().lastModified()).reversed());
        for (Path old : places.subList(Math.min(KEPT, places.size()), places.size())) {
            remove(old);
        }
    }

    private static void remove(Path directory) throws IOException {
        if (!Files.exists(directory)) {
            return;
        }
        try (Stream<Path> found = Files.walk(directory)) {
            for (Path path : found.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        }
    }
}
