import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

public class Main {
    public static void main(String[] arguments) throws Exception {
        long sum = IntStream.range(0, 2_000_000).parallel().mapToLong(i -> (long) i * i % 7).sum();
        Thread.ofVirtual().start(() -> {}).join();
        try (ServerSocket server = new ServerSocket(0); Socket socket = new Socket("localhost", server.getLocalPort())) {
            server.accept().close();
        }
        new ProcessBuilder("echo", "child").inheritIO().start().waitFor();
        String links = NetworkInterface.networkInterfaces().map(NetworkInterface::getName).collect(Collectors.joining(","));
        System.out.println((sum > 0) + " " + links + " " + InetAddress.getLocalHost().getHostName());
    }
}
