package qila;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;

/** A program's sources: their hashes, the words in them, and which of them a change may touch. */
final class Sources {
    private static final String SUFFIX = ".java";
    private static final Set<String> DECLARING = Set.of("class", "interface", "enum", "record");

    private Sources() {}

    /** One source: its SHA-256, all its words, and those that name a type that it declares. */
    record Source(String hash, Set<String> words, Set<String> types) {}

    /** Everything below the named places, by path; a module's declaration is left out, for all is one class path. */
    static Map<String, Source> read(String places) throws IOException {
        Map<String, Source> sources = new TreeMap<>();
        for (String place : places.split(":")) {
            try (Stream<Path> found = Files.walk(Path.of(place))) {
                List<Path> files = found.filter(path -> path.toString().endsWith(SUFFIX))
                        .filter(path -> !path.endsWith("module-info.java")).filter(Files::isRegularFile).toList();
                for (Path path : files) {
                    sources.put(path.normalize().toString(), source(Files.readAllBytes(path)));
                }
            }
        }
        return sources;
    }

    /** The same that the resolver makes of the same sources. */
    static String digest(State.Header header, Map<String, Source> sources) {
        StringBuilder text = new StringBuilder(header.toText());
        sources.forEach((path, source) -> text.append(path).append('\t').append(source.hash()).append('\n'));
        return hash(text.toString().getBytes(StandardCharsets.UTF_8));
    }

    /**
     * The sources that have to be compiled: those that changed, and all that name a type of such a one, or of one that is
     * affected itself. A type can be used without its name only through another whose name stands there.
     */
    static Set<String> affected(State base, Map<String, Source> sources) {
        Map<String, Set<String>> users = new HashMap<>();
        sources.forEach((path, source) ->
                source.words().forEach(word -> users.computeIfAbsent(word, key -> new HashSet<>()).add(path)));
        Set<String> affected = new LinkedHashSet<>();
        Deque<String> waiting = new ArrayDeque<>();
        sources.forEach((path, source) -> {
            if (!source.hash().equals(base.hashes().get(path))) {
                waiting.add(path);
            }
        });
        Set<String> gone = new HashSet<>(base.hashes().keySet());
        gone.removeAll(sources.keySet());
        for (String path : gone) {
            base.typesOf(path).forEach(type -> waiting.addAll(users.getOrDefault(type, Set.of())));
        }
        while (!waiting.isEmpty()) {
            String path = waiting.remove();
            if (affected.add(path)) {
                Set<String> types = new HashSet<>(sources.get(path).types());
                types.addAll(base.typesOf(path));
                types.forEach(type -> waiting.addAll(users.getOrDefault(type, Set.of())));
            }
        }
        return affected;
    }

    private static Source source(byte[] content) {
        Set<String> words = new HashSet<>();
        Set<String> types = new HashSet<>();
        String text = new String(content, StandardCharsets.UTF_8);
        String before = "";
        int start = -1;
        for (int index = 0; index <= text.length(); index++) {
            boolean inside = index < text.length() && Character.isJavaIdentifierPart(text.charAt(index));
            if (inside && start < 0) {
                start = index;
            } else if (!inside && start >= 0) {
                String word = text.substring(start, index);
                words.add(word);
                if (DECLARING.contains(before)) {
                    types.add(word);
                }
                before = word;
                start = -1;
            }
        }
        return new Source(hash(content), words, types);
    }

    static String hash(byte[] content) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
