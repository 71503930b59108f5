///usr/bin/env jbang "$0" "$@" ; exit $?
//JAVA 17+
//DEPS info.picocli:picocli:4.7.5

import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

@Command(name = "greet", mixinStandardHelpOptions = true, version = "1.0")
class greet implements Callable<Integer> {
    @Parameters(description = "whom to greet")
    private String name;

    @Option(names = {"-c", "--count"}, defaultValue = "1")
    private int count;

    @Override
    public Integer call() {
        for (int i = 1; i <= count; i++) {
            System.out.println(i + ": Hello, " + name + "!");
        }
        return count;
    }

    public static void main(String... args) {
        System.exit(new CommandLine(new greet()).execute(args));
    }
}
