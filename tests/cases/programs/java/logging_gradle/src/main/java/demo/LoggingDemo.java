package demo;

import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.MDC;

public class LoggingDemo {
    private static final Logger LOG = LoggerFactory.getLogger(LoggingDemo.class);

    public static void main(String[] args) {
        MDC.put("request", "r-1");
        LOG.info("started with {} arguments", args.length);
        LOG.debug("not shown");
        try {
            Integer.parseInt("x");
        } catch (NumberFormatException error) {
            LOG.warn("bad number", error);
        }
    }
}
