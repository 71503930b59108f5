package qila;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.collection.CollectRequest;
import org.eclipse.aether.graph.Dependency;
import org.eclipse.aether.graph.DependencyNode;
import org.eclipse.aether.resolution.ArtifactDescriptorRequest;
import org.eclipse.aether.resolution.ArtifactDescriptorResult;
import org.eclipse.aether.resolution.ArtifactResult;
import org.eclipse.aether.util.artifact.JavaScopes;
import org.eclipse.aether.util.graph.manager.DependencyManagerUtils;
import org.eclipse.aether.util.graph.transformer.ConflictResolver;
import org.eclipse.aether.util.repository.SimpleArtifactDescriptorPolicy;

/**
 * Chooses the versions of what the POM in the working directory asks for, fetches them, and lists them in packages.tsv.
 *
 * <p>Usage: Solve REPOSITORY LOCAL [highest] [tests] [runner]
 *
 * <p>workspace.tsv names the POMs of the workspace, `group:artifact:version`, a tab, and the file; the first one is that
 * of the program. previous.tsv, where it is, lists what was installed last, as packages.tsv does: its versions are
 * preferred where the POM leaves the choice. With `highest`, the highest of several versions wins, as with Gradle, and not
 * the nearest; with `tests`, dependencies of tests count; with `runner`, JUnit's own program that runs them is added.
 */
final class Solve {
    private static final String RUNNER_GROUP = "org.junit.platform";
    private static final String RUNNER = "junit-platform-console";
    private static final int MAX_PACKAGES = 5_000;

    private final Repository repository;
    private final Set<String> flags;
    private final Map<String, Path> own;

    private Solve(String url, Path local, Set<String> flags) throws IOException {
        this.flags = flags;
        own = ownPoms();
        repository = new Repository(url, local, own);
        repository.session.setConfigProperty(ConflictResolver.CONFIG_PROP_VERBOSE, Boolean.TRUE);
        repository.session.setConfigProperty(DependencyManagerUtils.CONFIG_PROP_VERBOSE, Boolean.TRUE);
        if (flags.contains("highest")) {
            repository.session.setDependencyGraphTransformer(Highest.transformer());
        }
    }

    public static void main(String[] arguments) {
        Failures.guard(() -> {
            Set<String> flags = Set.copyOf(List.of(arguments).subList(2, arguments.length));
            new Solve(arguments[0], Path.of(arguments[1]), flags).run();
        });
    }

    private void run() throws Exception {
        ArtifactDescriptorResult program = readProgram();
        Choice choice = new Choice(repository, previous());
        List<Dependency> dependencies = new ArrayList<>();
        for (Dependency dependency : program.getDependencies()) {
            if (counts(dependency)) {
                dependencies.add(choice.pinned(dependency));
            }
        }
        DependencyNode root = collect(dependencies, program.getManagedDependencies());
        if (flags.contains("runner")) {
            dependencies.add(runnerFor(root));
            root = collect(dependencies, program.getManagedDependencies());
        }
        Graph graph = new Graph(root, own.keySet());
        if (graph.winners().size() > MAX_PACKAGES) {
            throw new Failures.Failure("solve", "more than " + MAX_PACKAGES + " packages, which is the limit");
        }
        System.out.println("Resolved " + graph.winners().size() + " packages");
        Rows.write(Poms.added(rows(graph), repository));
    }

    private static Map<String, Path> ownPoms() throws IOException {
        Map<String, Path> poms = new LinkedHashMap<>();
        for (String line : Files.readAllLines(Path.of("workspace.tsv"))) {
            String[] fields = line.split("\t", 2);
            poms.put(fields[0], Path.of(fields[1]).toAbsolutePath());
        }
        return poms;
    }

    private static Map<String, String> previous() throws IOException {
        Map<String, String> versions = new LinkedHashMap<>();
        Path file = Path.of("previous.tsv");
        for (String line : Files.exists(file) ? Files.readAllLines(file) : List.<String>of()) {
            String[] fields = line.split("\t", 2);
            versions.put(fields[0], fields[1]);
        }
        return versions;
    }

    private ArtifactDescriptorResult readProgram() throws Exception {
        String[] id = own.keySet().iterator().next().split(":");
        ArtifactDescriptorRequest request = new ArtifactDescriptorRequest(
                new DefaultArtifact(id[0], id[1], "pom", id[2]), repository.remotes, "");
        // What is missing around the program's own POM is an error, unlike around those of others.
        var lenient = repository.session.getArtifactDescriptorPolicy();
        repository.session.setArtifactDescriptorPolicy(new SimpleArtifactDescriptorPolicy(false, false));
        try {
            return repository.system.readArtifactDescriptor(repository.session, request);
        } finally {
            repository.session.setArtifactDescriptorPolicy(lenient);
        }
    }

    private boolean counts(Dependency dependency) {
        if (dependency.getScope().equals(JavaScopes.SYSTEM)) {
            return false;
        }
        return flags.contains("tests") || !dependency.getScope().equals(JavaScopes.TEST);
    }

    private DependencyNode collect(List<Dependency> dependencies, List<Dependency> managed) throws Exception {
        CollectRequest request = new CollectRequest(dependencies, managed, repository.remotes);
        return repository.system.collectDependencies(repository.session, request).getRoot();
    }

    /** The program that runs JUnit's tests has the version of the engine that runs in it. */
    private Dependency runnerFor(DependencyNode root) throws Failures.Failure {
        String version = new Graph(root, own.keySet()).winners().stream()
                .map(node -> node.getArtifact())
                .filter(artifact -> artifact.getGroupId().equals(RUNNER_GROUP))
                .map(Artifact::getVersion)
                .findFirst()
                .orElseThrow(() -> new Failures.Failure("solve", "no JUnit 5 or later is among the dependencies"));
        return new Dependency(new DefaultArtifact(RUNNER_GROUP, RUNNER, "jar", version), JavaScopes.TEST);
    }

    private List<Rows.Row> rows(Graph graph) throws Exception {
        List<Artifact> artifacts = graph.winners().stream().map(DependencyNode::getArtifact)
                .filter(artifact -> !artifact.getExtension().equals("pom")).toList();
        Names names = new Names();
        List<Rows.Row> rows = new ArrayList<>();
        for (ArtifactResult result : repository.resolve(artifacts)) {
            Artifact artifact = result.getArtifact();
            rows.add(new Rows.Row("package", artifact.getGroupId(), artifact.getArtifactId(), artifact.getVersion(),
                    artifact.getClassifier(), artifact.getExtension(), graph.isDirect(artifact),
                    "lib/" + names.of(artifact), Rows.sha256(artifact.getFile().toPath()),
                    graph.requirersOf(artifact)));
        }
        return rows;
    }
}
