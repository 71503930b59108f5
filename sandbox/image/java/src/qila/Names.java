package qila;

import java.util.HashSet;
import java.util.Set;
import org.eclipse.aether.artifact.Artifact;

/** The names of files in one directory: an artifact's own, with its group in front where two would be the same. */
final class Names {
    private final Set<String> taken = new HashSet<>();

    String of(Artifact artifact) {
        String classifier = artifact.getClassifier().isEmpty() ? "" : "-" + artifact.getClassifier();
        String name = artifact.getArtifactId() + "-" + artifact.getVersion() + classifier + "." + artifact.getExtension();
        if (!taken.add(name)) {
            name = artifact.getGroupId() + "." + name;
            taken.add(name);
        }
        return name;
    }
}
