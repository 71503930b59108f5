package qila;

import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.graph.Dependency;
import org.eclipse.aether.resolution.VersionRangeRequest;
import org.eclipse.aether.resolution.VersionRangeResult;
import org.eclipse.aether.version.Version;

/** Pins what a POM leaves open: RELEASE, LATEST and ranges. The version of the last install is preferred. */
final class Choice {
    private static final Pattern PRERELEASE = Pattern.compile(
            "(?i)(?:^|[.\\-_+\\d])(?:alpha|beta|rc|cr|m|milestone|snapshot|preview|pre|ea|dev|incubating|b)[.\\-_]?\\d*(?:[.\\-_+].*)?$");
    // Some very old releases have the day as their version, which is above all that came later.
    private static final Pattern DAY = Pattern.compile("(?:19|20)\\d{6}(?:\\D.*)?");
    private static final String ANY = "[0,)";

    private final Repository repository;
    private final Map<String, String> previous;

    Choice(Repository repository, Map<String, String> previous) {
        this.repository = repository;
        this.previous = previous;
    }

    Dependency pinned(Dependency dependency) throws Exception {
        String asked = dependency.getArtifact().getVersion();
        boolean named = asked.equals("RELEASE") || asked.equals("LATEST");
        if (!named && !asked.startsWith("[") && !asked.startsWith("(")) {
            return dependency;
        }
        Artifact artifact = dependency.getArtifact();
        String version = choose(artifact, named ? ANY : asked);
        System.out.println("Pinned " + artifact.getGroupId() + ":" + artifact.getArtifactId() + ":" + version
                + " (" + asked + ")");
        return dependency.setArtifact(artifact.setVersion(version));
    }

    private String choose(Artifact artifact, String range) throws Exception {
        String name = artifact.getGroupId() + ":" + artifact.getArtifactId();
        VersionRangeRequest request = new VersionRangeRequest(
                new DefaultArtifact(artifact.getGroupId(), artifact.getArtifactId(), "jar", range),
                repository.remotes, "");
        VersionRangeResult result = repository.system.resolveVersionRange(repository.session, request);
        String last = previous.get(name);
        List<String> versions = result.getVersions().stream().map(Version::toString).toList();
        if (last != null && versions.contains(last)) {
            return last;
        }
        if (versions.isEmpty()) {
            String reason = range.equals(ANY) ? "not-found" : "no-version";
            String cause = result.getExceptions().isEmpty() ? "" : ": " + result.getExceptions().get(0).getMessage();
            throw new Failures.Failure(reason, name + ": the repository has no version"
                    + (range.equals(ANY) ? "" : " in " + range) + cause);
        }
        return newest(versions);
    }

    /** The newest that is neither a trial nor numbered by its day, else the newest of all. */
    private static String newest(List<String> versions) {
        List<String> numbered = versions.stream().filter(version -> !DAY.matcher(version).matches()).toList();
        List<String> candidates = numbered.isEmpty() ? versions : numbered;
        List<String> stable = candidates.stream().filter(version -> !PRERELEASE.matcher(version).find()).toList();
        List<String> left = stable.isEmpty() ? candidates : stable;
        return left.get(left.size() - 1);
    }
}
