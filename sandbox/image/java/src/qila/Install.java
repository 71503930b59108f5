package qila;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.eclipse.aether.resolution.ArtifactResolutionException;

/**
 * Puts what packages.tsv lists into an environment, each file held against its SHA-256, and writes the lock.
 *
 * <p>Usage: Install REPOSITORY LOCAL ENVIRONMENT
 */
final class Install {
    private final String url;
    private final Path local;
    private Repository repository;

    private Install(String url, Path local) {
        this.url = url;
        this.local = local;
    }

    public static void main(String[] arguments) {
        Failures.guard(() -> {
            Path environment = Path.of(arguments[2]);
            List<Rows.Row> rows = Rows.read();
            Install install = new Install(arguments[0], Path.of(arguments[1]));
            rows = install.withPoms(rows);
            List<Rows.Row> installed = new ArrayList<>();
            Files.createDirectories(environment.resolve("lib"));
            Files.createDirectories(environment.resolve("pom"));
            for (Rows.Row row : rows) {
                installed.add(install.put(row, environment));
            }
            Files.writeString(environment.resolve("classpath"), classpath(installed, environment) + "\n");
            Rows.writeLock(installed);
            System.out.println("Installed " + rows.stream().filter(row -> row.kind().equals("package")).count() + " packages");
        });
    }

    private static String classpath(List<Rows.Row> rows, Path environment) {
        return String.join(":", rows.stream()
                .filter(row -> row.kind().equals("package") && row.extension().equals("jar"))
                .map(row -> environment.resolve(row.file()).toString()).toList());
    }

    /** A lock that tells of no POMs gets them: they hold the licences. */
    private List<Rows.Row> withPoms(List<Rows.Row> rows) throws Exception {
        boolean complete = rows.stream().anyMatch(row -> row.kind().equals("pom"));
        return complete ? rows : Poms.added(rows, repository());
    }

    private Rows.Row put(Rows.Row row, Path environment) throws IOException, ArtifactResolutionException {
        Path source = local.resolve(layout(row));
        if (!Files.exists(source)) {
            source = repository().resolve(List.of(row.toArtifact())).get(0).getArtifact().getFile().toPath();
        }
        Path place = environment.resolve(row.file());
        Files.copy(source, place);
        // Of the copy: what lies in the cache could be another file by now.
        String hash = Rows.sha256(place);
        if (!row.sha256().isEmpty() && !row.sha256().equals(hash)) {
            Files.deleteIfExists(source);
            throw new Failures.Failure("hash", row.id() + ": " + row.file() + " has the SHA-256 " + hash
                    + ", the lock says " + row.sha256());
        }
        if (row.kind().equals("package")) {
            System.out.println("+ " + row.id());
        }
        return row.with(hash);
    }

    private Repository repository() {
        if (repository == null) {
            repository = new Repository(url, local, Map.of());
        }
        return repository;
    }

    private static String layout(Rows.Row row) {
        String classifier = row.classifier().isEmpty() ? "" : "-" + row.classifier();
        return row.group().replace('.', '/') + "/" + row.artifact() + "/" + row.version() + "/" + row.artifact() + "-"
                + row.version() + classifier + "." + row.extension();
    }
}
