package shop.app;

import com.google.gson.Gson;
import shop.core.Item;

public class Shop {
    public static void main(String[] args) {
        System.out.println(new Gson().toJson(Item.named("tea", 250)));
    }
}
