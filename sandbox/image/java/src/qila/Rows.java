package qila;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;

/** What is to be installed, one artifact a line, fields between tabs, and the lock that is made of it. */
final class Rows {
    static final Path FILE = Path.of("packages.tsv");
    static final Path LOCK = Path.of("maven.lock.json");
    private static final int FIELDS = 10;

    private Rows() {}

    /**
     * One artifact. {@code kind} is "package", or "pom" for what only describes packages; {@code file} is where it lies
     * below the environment, {@code sha256} is empty where it is not known yet, {@code requiredBy} holds ids.
     */
    record Row(
            String kind, String group, String artifact, String version, String classifier, String extension, boolean direct,
            String file, String sha256, List<String> requiredBy) {
        Artifact toArtifact() {
            return new DefaultArtifact(group, artifact, classifier, extension, version);
        }

        String id() {
            return group + ":" + artifact + ":" + version;
        }

        Row with(String hash) {
            return new Row(kind, group, artifact, version, classifier, extension, direct, file, hash, requiredBy);
        }

        private String toLine() {
            return String.join("\t", kind, group, artifact, version, classifier, extension, direct ? "direct" : "", file,
                    sha256, String.join(",", requiredBy));
        }
    }

    static String id(Artifact artifact) {
        return artifact.getGroupId() + ":" + artifact.getArtifactId() + ":" + artifact.getVersion();
    }

    static List<Row> read() throws IOException {
        List<Row> rows = new ArrayList<>();
        for (String line : Files.readAllLines(FILE)) {
            String[] fields = line.split("\t", -1);
            if (fields.length != FIELDS) {
                throw new IOException(FILE + ": a line has " + fields.length + " fields");
            }
            List<String> requiredBy = fields[9].isEmpty() ? List.of() : List.of(fields[9].split(","));
            rows.add(new Row(fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6].equals("direct"),
                    fields[7], fields[8], requiredBy));
        }
        return rows;
    }

    static void write(List<Row> rows) throws IOException {
        Files.write(FILE, rows.stream().map(Row::toLine).toList());
    }

    /** The lock: keys in order, one package after the other, so that two of them can be compared line by line. */
    static void writeLock(List<Row> rows) throws IOException {
        StringBuilder text = new StringBuilder("{\n  \"format\": 1,\n  \"tool\": \"maven\"");
        appendList(text, "packages", rows.stream().filter(row -> row.kind().equals("package")).toList());
        appendList(text, "poms", rows.stream().filter(row -> row.kind().equals("pom")).toList());
        Files.writeString(LOCK, text.append("\n}\n"));
    }

    private static void appendList(StringBuilder text, String name, List<Row> rows) {
        text.append(",\n  ").append(quoted(name)).append(": [");
        String separator = "\n";
        for (Row row : rows) {
            text.append(separator).append("    {\n");
            append(text, "group", row.group()).append(",\n");
            append(text, "artifact", row.artifact()).append(",\n");
            append(text, "version", row.version()).append(",\n");
            if (name.equals("packages")) {
                append(text, "classifier", row.classifier()).append(",\n");
                append(text, "extension", row.extension()).append(",\n");
                text.append("      \"direct\": ").append(row.direct()).append(",\n");
                String requirers = String.join(", ", row.requiredBy().stream().map(Rows::quoted).toList());
                text.append("      \"required_by\": [").append(requirers).append("],\n");
            }
            append(text, "file", row.file()).append(",\n");
            append(text, "sha256", row.sha256()).append("\n    }");
            separator = ",\n";
        }
        text.append(rows.isEmpty() ? "]" : "\n  ]");
    }

    private static StringBuilder append(StringBuilder text, String key, String value) {
        return text.append("      ").append(quoted(key)).append(": ").append(quoted(value));
    }

    /** Names and versions hold nothing that JSON escapes but, if somebody means harm, these. */
    private static String quoted(String value) {
        StringBuilder text = new StringBuilder("\"");
        for (char character : value.toCharArray()) {
            if (character < ' ' || character == '"' || character == '\\' || character > '~') {
                text.append(String.format("\\u%04x", (int) character));
            } else {
                text.append(character);
            }
        }
        return text.append('"').toString();
    }

    static String sha256(Path path) throws IOException {
        try (InputStream stream = Files.newInputStream(path)) {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            byte[] buffer = new byte[1 << 16];
            for (int count = stream.read(buffer); count >= 0; count = stream.read(buffer)) {
                digest.update(buffer, 0, count);
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
    }
}
