package qila;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/** One run of javac, which also tells which class came from which source. */
final class Compiler {
    private Compiler() {}

    /** The names of the classes by source, or null if it failed: javac has said why. */
    static Map<String, List<String>> run(List<String> sources, Path classes, String classpath, String options)
            throws IOException {
        JavaCompiler javac = ToolProvider.getSystemJavaCompiler();
        List<String> arguments = new ArrayList<>(List.of("-d", classes.toString(), "-cp", classpath, "-encoding", "UTF-8",
                "-g", "-parameters", "-proc:full", "-nowarn", "-Xlint:-options", "-XDsuppressNotes"));
        if (!options.isEmpty()) {
            arguments.addAll(List.of(options.split(" ")));
        }
        try (StandardJavaFileManager files = javac.getStandardFileManager(null, Locale.ENGLISH, StandardCharsets.UTF_8);
                Recorder recorder = new Recorder(files)) {
            Iterable<? extends JavaFileObject> inputs = files.getJavaFileObjectsFromStrings(sources);
            boolean ended = javac.getTask(null, recorder, null, arguments, null, inputs).call();
            return ended ? recorder.written : null;
        }
    }

    private static final class Recorder extends ForwardingJavaFileManager<StandardJavaFileManager> {
        private final Map<String, List<String>> written = new TreeMap<>();

        Recorder(StandardJavaFileManager files) {
            super(files);
        }

        @Override
        public JavaFileObject getJavaFileForOutput(
                Location location, String className, JavaFileObject.Kind kind, FileObject sibling) throws IOException {
            if (kind == JavaFileObject.Kind.CLASS && sibling != null) {
                written.computeIfAbsent(sibling.getName(), key -> new ArrayList<>()).add(className);
            }
            return super.getJavaFileForOutput(location, className, kind, sibling);
        }
    }
}
