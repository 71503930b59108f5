package shop;

import com.google.common.collect.ArrayListMultimap;
import com.google.common.collect.Multimap;

public class Main {
    public static void main(String[] args) {
        Multimap<String, Product> byKind = ArrayListMultimap.create();
        byKind.put("fruit", Product.builder().name("mango").price(40).build());
        byKind.put("fruit", Product.builder().name("guava").price(30).build());
        System.out.println(byKind.get("fruit"));
    }
}
