package report;

import com.google.gson.Gson;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.commons.lang3.StringUtils;

public class Report {
    public static void main(String[] args) {
        List<String> rows = List.of("north", "south", "west");
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("title", StringUtils.capitalize("quarterly report"));
        report.put("rows", rows.size());
        System.out.println(new Gson().toJson(report));
    }
}
