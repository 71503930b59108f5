package qila;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Deque;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.graph.DependencyNode;
import org.eclipse.aether.util.graph.transformer.ConflictResolver;

/** A solved graph: the nodes that are installed, nearest first, and who asks for each. */
final class Graph {
    private final Set<String> own;
    private final Map<String, DependencyNode> winners = new LinkedHashMap<>();
    private final Map<String, Set<String>> requirers = new LinkedHashMap<>();
    private final Set<String> direct = new LinkedHashSet<>();

    /** {@code own} holds the ids of the workspace's POMs: they are no packages, and what they ask for is direct. */
    Graph(DependencyNode root, Set<String> own) {
        this.own = own;
        Set<DependencyNode> seen = Collections.newSetFromMap(new IdentityHashMap<>());
        Deque<DependencyNode> waiting = new ArrayDeque<>(List.of(root));
        while (!waiting.isEmpty()) {
            DependencyNode node = waiting.remove();
            if (seen.add(node)) {
                for (DependencyNode child : node.getChildren()) {
                    note(node, child);
                    waiting.add(child);
                }
            }
        }
    }

    List<DependencyNode> winners() {
        return new ArrayList<>(winners.values());
    }

    boolean isDirect(Artifact artifact) {
        return direct.contains(key(artifact));
    }

    List<String> requirersOf(Artifact artifact) {
        return List.copyOf(requirers.getOrDefault(key(artifact), Set.of()));
    }

    private void note(DependencyNode parent, DependencyNode child) {
        Object winner = child.getData().get(ConflictResolver.NODE_DATA_WINNER);
        DependencyNode chosen = winner instanceof DependencyNode node ? node : child;
        Artifact artifact = chosen.getArtifact();
        if (artifact == null || own.contains(Rows.id(artifact))) {
            return;
        }
        if (chosen == child) {
            winners.putIfAbsent(key(artifact), child);
        }
        Artifact above = parent.getArtifact();
        if (above == null || own.contains(Rows.id(above))) {
            direct.add(key(artifact));
        } else if (!Rows.id(above).equals(Rows.id(artifact))) {
            requirers.computeIfAbsent(key(artifact), key -> new TreeSet<>()).add(Rows.id(above));
        }
    }

    private static String key(Artifact artifact) {
        return Rows.id(artifact) + ":" + artifact.getClassifier() + ":" + artifact.getExtension();
    }
}
