import java.io.IOException;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import org.apache.commons.codec.binary.Base64;
import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVRecord;
import org.apache.commons.io.IOUtils;

public class Main {
    public static void main(String[] args) throws IOException {
        String text = "name\nann\nbob\n";
        for (CSVRecord row : CSVFormat.DEFAULT.builder().setHeader().setSkipHeaderRecord(true).build().parse(new StringReader(text))) {
            System.out.println(row.get("name") + ":" + Base64.encodeBase64String(row.get("name").getBytes(StandardCharsets.UTF_8)));
        }
        System.out.println(IOUtils.readLines(new StringReader(text)).size() - 1 + " lines");
    }
}
