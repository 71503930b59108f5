package shop;

import lombok.Builder;
import lombok.Data;

@Data
@Builder
public class Product {
    private final String name;
    private final int price;
}
