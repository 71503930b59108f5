package shop.core;

import org.apache.commons.lang3.StringUtils;

public record Item(String name, int cents) {
    public static Item named(String name, int cents) {
        return new Item(StringUtils.capitalize(name), cents);
    }
}
