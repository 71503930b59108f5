package qila;

import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import org.eclipse.aether.RepositorySystemSession;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.spi.connector.transport.AbstractTransporter;
import org.eclipse.aether.spi.connector.transport.GetTask;
import org.eclipse.aether.spi.connector.transport.PeekTask;
import org.eclipse.aether.spi.connector.transport.PutTask;
import org.eclipse.aether.spi.connector.transport.Transporter;
import org.eclipse.aether.spi.connector.transport.TransporterFactory;

/** The way to the repository: reads through the sandbox's door, by plain HTTP, and nothing else. */
public final class Door implements TransporterFactory {
    private static final int TIMEOUT_MILLISECONDS = 60_000;
    private static final int MAX_ADVICE_BYTES = 2048;

    @Override
    public Transporter newInstance(RepositorySystemSession session, RemoteRepository repository) {
        return new Reader(URI.create(repository.getUrl()));
    }

    @Override
    public float getPriority() {
        return 1;
    }

    /** An answer that is no file: its status, and what the door says about it. */
    static final class RefusedException extends IOException {
        private static final long serialVersionUID = 1;
        final int status;

        RefusedException(int status, String advice) {
            super("HTTP " + status + (advice.isEmpty() ? "" : ": " + advice));
            this.status = status;
        }
    }

    private static final class Reader extends AbstractTransporter {
        private final URI base;

        Reader(URI base) {
            this.base = base;
        }

        @Override
        public int classify(Throwable error) {
            boolean absent = error instanceof RefusedException refused && (refused.status == 404 || refused.status == 410);
            return absent ? ERROR_NOT_FOUND : ERROR_OTHER;
        }

        @Override
        protected void implPeek(PeekTask task) throws Exception {
            HttpURLConnection connection = open(task.getLocation());
            connection.setRequestMethod("HEAD");
            check(connection);
        }

        @Override
        protected void implGet(GetTask task) throws Exception {
            HttpURLConnection connection = open(task.getLocation());
            check(connection);
            try (InputStream stream = connection.getInputStream()) {
                utilGet(task, stream, true, connection.getContentLengthLong(), false);
            }
        }

        @Override
        protected void implPut(PutTask task) {
            throw new UnsupportedOperationException("the repository is only read");
        }

        @Override
        protected void implClose() {
            // Connections are kept and closed by the runtime.
        }

        private HttpURLConnection open(URI location) throws IOException {
            HttpURLConnection connection = (HttpURLConnection) base.resolve(location).toURL().openConnection();
            connection.setConnectTimeout(TIMEOUT_MILLISECONDS);
            connection.setReadTimeout(TIMEOUT_MILLISECONDS);
            connection.setInstanceFollowRedirects(false);
            return connection;
        }

        private static void check(HttpURLConnection connection) throws IOException {
            int status = connection.getResponseCode();
            if (status == 200) {
                return;
            }
            String advice = "";
            try (InputStream stream = connection.getErrorStream()) {
                if (stream != null) {
                    advice = new String(stream.readNBytes(MAX_ADVICE_BYTES), StandardCharsets.UTF_8);
                }
            }
            throw new RefusedException(status, advice.replaceAll("\\s+", " ").strip());
        }
    }
}
