package qila;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;

/** What was compiled of what: for each source its hash, and the class files that came from it. */
record State(Path place, Map<String, String> hashes, Map<String, List<String>> classes) {
    static final String NAME = "state.tsv";
    static final String CLASSES = "classes";

    /** What decides the classes beside the sources: where they lie, the environment, options, and the JDK's version. */
    record Header(String sources, String environment, String options) {
        String toText() {
            return sources + "\t" + environment + "\t" + options + "\t" + Runtime.version().feature() + "\n";
        }
    }

    static void write(
            Path directory, Header header, Map<String, Sources.Source> sources, Map<String, List<String>> classes)
            throws IOException {
        StringBuilder text = new StringBuilder(header.toText());
        sources.forEach((path, source) -> text.append(path).append('\t').append(source.hash()).append('\t')
                .append(String.join(",", classes.getOrDefault(path, List.of()))).append('\n'));
        Files.writeString(directory.resolve(NAME), text);
    }

    /** The newest state with the same header; null if there is none. */
    static State latest(Path cache, Header header) throws IOException {
        List<Path> places;
        try (Stream<Path> found = Files.list(cache)) {
            places = found.filter(path -> Files.exists(path.resolve(NAME)))
                    .sorted(Comparator.comparing((Path path) -> path.toFile().lastModified()).reversed()).toList();
        }
        for (Path place : places) {
            List<String> lines = Files.readAllLines(place.resolve(NAME));
            if (!lines.isEmpty() && header.toText().equals(lines.get(0) + "\n")) {
                return parse(place, lines);
            }
        }
        return null;
    }

    private static State parse(Path place, List<String> lines) {
        Map<String, String> hashes = new TreeMap<>();
        Map<String, List<String>> classes = new TreeMap<>();
        for (String line : lines.subList(1, lines.size())) {
            String[] fields = line.split("\t", -1);
            hashes.put(fields[0], fields[1]);
            classes.put(fields[0], fields[2].isEmpty() ? List.of() : List.of(fields[2].split(",")));
        }
        return new State(place, hashes, classes);
    }

    /** The simple names of the types that came from a source. */
    Set<String> typesOf(String source) {
        Set<String> names = new HashSet<>();
        for (String name : classes.getOrDefault(source, List.of())) {
            names.addAll(List.of(name.substring(name.lastIndexOf('.') + 1).split("\\$")));
        }
        return names;
    }

    /** Takes over the classes of the sources that are still there and not affected, and returns which. */
    Map<String, List<String>> take(Path target, Set<String> present, Set<String> affected) throws IOException {
        Map<String, List<String>> taken = new TreeMap<>();
        for (Map.Entry<String, List<String>> entry : classes.entrySet()) {
            if (present.contains(entry.getKey()) && !affected.contains(entry.getKey())) {
                for (String name : new ArrayList<>(entry.getValue())) {
                    String file = name.replace('.', '/') + ".class";
                    Files.createDirectories(target.resolve(file).getParent());
                    Files.createLink(target.resolve(file), place.resolve(CLASSES).resolve(file));
                }
                taken.put(entry.getKey(), entry.getValue());
            }
        }
        return taken;
    }
}
