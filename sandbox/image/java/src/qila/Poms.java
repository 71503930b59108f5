package qila;

import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.maven.model.Model;
import org.apache.maven.model.io.xpp3.MavenXpp3Reader;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.resolution.ArtifactResult;

/** The POMs of packages, and those above them: an environment keeps them for what they say about licences. */
final class Poms {
    private static final int MAX_DEPTH = 20;

    private Poms() {}

    /** The rows, and one for each POM that they lead to. */
    static List<Rows.Row> added(List<Rows.Row> rows, Repository repository) throws Exception {
        Map<String, Artifact> found = new LinkedHashMap<>();
        Map<String, Artifact> wanted = new LinkedHashMap<>();
        for (Rows.Row row : rows) {
            wanted.put(row.id(), new DefaultArtifact(row.group(), row.artifact(), "pom", row.version()));
        }
        for (int depth = 0; depth < MAX_DEPTH && !wanted.isEmpty(); depth++) {
            Map<String, Artifact> parents = new LinkedHashMap<>();
            for (ArtifactResult result : repository.resolve(List.copyOf(wanted.values()))) {
                Artifact pom = result.getArtifact();
                found.put(Rows.id(pom), pom);
                Artifact parent = parentOf(pom.getFile().toPath());
                if (parent != null && !found.containsKey(Rows.id(parent))) {
                    parents.put(Rows.id(parent), parent);
                }
            }
            wanted = parents;
            wanted.keySet().removeAll(found.keySet());
        }
        List<Rows.Row> all = new ArrayList<>(rows);
        for (Artifact pom : found.values()) {
            all.add(new Rows.Row("pom", pom.getGroupId(), pom.getArtifactId(), pom.getVersion(), "", "pom", false,
                    "pom/" + pom.getGroupId() + "." + pom.getArtifactId() + "-" + pom.getVersion() + ".pom",
                    Rows.sha256(pom.getFile().toPath()), List.of()));
        }
        return all;
    }

    private static Artifact parentOf(Path pom) {
        try (InputStream stream = Files.newInputStream(pom)) {
            Model model = new MavenXpp3Reader().read(stream, false);
            return model.getParent() == null ? null : new DefaultArtifact(model.getParent().getGroupId(),
                    model.getParent().getArtifactId(), "pom", model.getParent().getVersion());
        } catch (Exception error) {
            // A POM that cannot be read is still what the repository has; nothing is known about its licence.
            return null;
        }
    }
}
