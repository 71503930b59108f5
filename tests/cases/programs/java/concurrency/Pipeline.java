import java.util.List;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

sealed interface Message permits Work, Stop {}

record Work(int value) implements Message {}

record Stop() implements Message {}

public class Pipeline {
    public static void main(String[] args) throws Exception {
        BlockingQueue<Message> queue = new ArrayBlockingQueue<>(16);
        AtomicLong sum = new AtomicLong();
        try (ExecutorService pool = Executors.newVirtualThreadPerTaskExecutor()) {
            var consumer = CompletableFuture.runAsync(() -> consume(queue, sum), pool);
            for (int i = 1; i <= 1000; i++) {
                queue.put(new Work(i));
            }
            queue.put(new Stop());
            consumer.join();
        }
        List<Integer> squares = IntStream.rangeClosed(1, 5).parallel().map(i -> i * i).boxed().toList();
        System.out.println("sum " + sum + " squares " + squares);
    }

    private static void consume(BlockingQueue<Message> queue, AtomicLong sum) {
        try {
            while (true) {
                switch (queue.take()) {
                    case Work(int value) -> sum.addAndGet(value);
                    case Stop stop -> {
                        return;
                    }
                }
            }
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
