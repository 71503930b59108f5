import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.reflect.TypeToken;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

record Item(String name, int quantity, double price) {}

public class Inventory {
    public static void main(String[] args) {
        Gson gson = new GsonBuilder().setPrettyPrinting().create();
        String json = "[{\"name\":\"bolt\",\"quantity\":40,\"price\":0.25},{\"name\":\"nut\",\"quantity\":60,\"price\":0.1}]";
        List<Item> items = gson.fromJson(json, new TypeToken<List<Item>>() {}.getType());
        Map<String, Double> worth =
                items.stream().collect(Collectors.toMap(Item::name, item -> item.quantity() * item.price()));
        System.out.println(gson.toJson(new java.util.TreeMap<>(worth)));
    }
}
