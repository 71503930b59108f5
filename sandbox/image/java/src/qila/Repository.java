package qila;

import java.io.File;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.apache.maven.repository.internal.MavenRepositorySystemUtils;
import org.eclipse.aether.DefaultRepositorySystemSession;
import org.eclipse.aether.RepositorySystem;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.connector.basic.BasicRepositoryConnectorFactory;
import org.eclipse.aether.impl.DefaultServiceLocator;
import org.eclipse.aether.repository.LocalRepository;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.repository.RepositoryPolicy;
import org.eclipse.aether.repository.WorkspaceReader;
import org.eclipse.aether.repository.WorkspaceRepository;
import org.eclipse.aether.resolution.ArtifactRequest;
import org.eclipse.aether.resolution.ArtifactResolutionException;
import org.eclipse.aether.resolution.ArtifactResult;
import org.eclipse.aether.spi.connector.RepositoryConnectorFactory;
import org.eclipse.aether.spi.connector.transport.TransporterFactory;
import org.eclipse.aether.transfer.AbstractTransferListener;
import org.eclipse.aether.transfer.TransferEvent;

/** Maven's own resolver with one repository, whatever a POM says, and the local one as its cache. */
final class Repository {
    final RepositorySystem system;
    final DefaultRepositorySystemSession session;
    final List<RemoteRepository> remotes;

    /** {@code own} holds the workspace's POMs by {@code group:artifact:version}. */
    @SuppressWarnings("deprecation") // Debian's Maven has no other way to its resolver without a container.
    Repository(String url, Path local, Map<String, Path> own) {
        DefaultServiceLocator locator = MavenRepositorySystemUtils.newServiceLocator();
        locator.addService(RepositoryConnectorFactory.class, BasicRepositoryConnectorFactory.class);
        locator.addService(TransporterFactory.class, Door.class);
        system = locator.getService(RepositorySystem.class);
        session = MavenRepositorySystemUtils.newSession();
        session.setSystemProperties(System.getProperties());
        session.setChecksumPolicy(RepositoryPolicy.CHECKSUM_POLICY_FAIL);
        session.setUpdatePolicy(RepositoryPolicy.UPDATE_POLICY_ALWAYS);
        // Repositories that POMs bring are passed over.
        session.setIgnoreArtifactDescriptorRepositories(true);
        session.setLocalRepositoryManager(system.newLocalRepositoryManager(session, new LocalRepository(local.toFile())));
        session.setWorkspaceReader(new Workspace(own));
        session.setTransferListener(new Teller());
        RepositoryPolicy policy = new RepositoryPolicy(
                true, RepositoryPolicy.UPDATE_POLICY_ALWAYS, RepositoryPolicy.CHECKSUM_POLICY_FAIL);
        remotes = List.of(new RemoteRepository.Builder("central", "default", url).setPolicy(policy).build());
    }

    List<ArtifactResult> resolve(List<Artifact> artifacts) throws ArtifactResolutionException {
        return system.resolveArtifacts(
                session, artifacts.stream().map(artifact -> new ArtifactRequest(artifact, remotes, "")).toList());
    }

    /** Says what is fetched, a line for each file that is a package's. */
    private static final class Teller extends AbstractTransferListener {
        @Override
        public void transferInitiated(TransferEvent event) {
            tell("Downloading", event);
        }

        @Override
        public void transferSucceeded(TransferEvent event) {
            tell("Downloaded", event);
        }

        private static void tell(String what, TransferEvent event) {
            String name = event.getResource().getResourceName();
            if (!name.endsWith(".xml")) {
                long bytes = event.getTransferredBytes();
                System.out.println(what + " " + name + (bytes > 0 ? " (" + bytes + " bytes)" : ""));
            }
        }
    }

    /** The workspace's POMs; it has no other artifacts. */
    private static final class Workspace implements WorkspaceReader {
        private final WorkspaceRepository repository = new WorkspaceRepository("qila");
        private final Map<String, Path> own;

        Workspace(Map<String, Path> own) {
            this.own = own;
        }

        @Override
        public WorkspaceRepository getRepository() {
            return repository;
        }

        @Override
        public File findArtifact(Artifact artifact) {
            Path path = artifact.getExtension().equals("pom") ? own.get(Rows.id(artifact)) : null;
            return path == null ? null : path.toFile();
        }

        @Override
        public List<String> findVersions(Artifact artifact) {
            String prefix = artifact.getGroupId() + ":" + artifact.getArtifactId() + ":";
            return own.keySet().stream().filter(id -> id.startsWith(prefix))
                    .map(id -> id.substring(prefix.length())).toList();
        }
    }
}
