package dev.qila.examples;

import com.google.protobuf.ByteString;
import dev.qila.gateway.v1.WriteFileEnd;
import dev.qila.gateway.v1.WriteFileHeader;
import dev.qila.gateway.v1.WriteFileRequest;
import java.io.File;
import java.io.InputStream;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;

/** Uploads what is to be run. */
final class Upload {
    private static final int CHUNK_BYTES = 64 << 10;
    /** Directories that are made from the others. */
    private static final Set<String> LEFT_OUT = Set.of(".git", ".venv", "node_modules", "__pycache__");

    private final GatewayCalls gateway;
    private final String sandbox;

    Upload(GatewayCalls gateway, String sandbox) {
        this.gateway = gateway;
        this.sandbox = sandbox;
    }

    /**
     * Writes a file, or the files of a directory, into the workspace. Answers the file to run: of a directory none, so
     * that Qila finds the program.
     */
    String of(Path path) throws Exception {
        if (!Files.isDirectory(path)) {
            String name = path.getFileName().toString();
            write(path, name);
            return name;
        }
        for (Path file : filesBelow(path)) {
            write(file, path.relativize(file).toString().replace(File.separatorChar, '/'));
        }
        return "";
    }

    private static List<Path> filesBelow(Path directory) throws Exception {
        List<Path> files = new ArrayList<>();
        Files.walkFileTree(directory, new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult preVisitDirectory(Path entered, BasicFileAttributes attributes) {
                boolean leftOut = !entered.equals(directory) && LEFT_OUT.contains(entered.getFileName().toString());
                return leftOut ? FileVisitResult.SKIP_SUBTREE : FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) {
                if (attributes.isRegularFile()) {
                    files.add(file);
                }
                return FileVisitResult.CONTINUE;
            }
        });
        return files;
    }

    /** Sends the header, the bytes, and the end, without which nothing is written. */
    private void write(Path local, String path) throws Exception {
        MessageDigest hash = MessageDigest.getInstance("SHA-256");
        try (InputStream content = Files.newInputStream(local)) {
            var call = gateway.writeFile();
            try {
                var header = WriteFileHeader.newBuilder()
                        .setSandboxId(sandbox).setPath(path).setExecutable(Files.isExecutable(local));
                call.write(WriteFileRequest.newBuilder().setHeader(header).build());
                for (byte[] bytes; (bytes = content.readNBytes(CHUNK_BYTES)).length > 0; ) {
                    hash.update(bytes);
                    call.write(WriteFileRequest.newBuilder().setChunk(ByteString.copyFrom(bytes)).build());
                }
                var end = WriteFileEnd.newBuilder().setSha256(HexFormat.of().formatHex(hash.digest()));
                call.write(WriteFileRequest.newBuilder().setEnd(end).build());
                call.halfClose();
                call.read();
            } finally {
                // A file that could not be read to its end is not written.
                call.cancel("over", null);
            }
        }
    }
}
