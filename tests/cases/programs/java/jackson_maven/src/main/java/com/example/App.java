package com.example;

import com.example.model.Order;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.datatype.jsr310.JavaTimeModule;
import java.io.InputStream;

public class App {
    public static void main(String[] args) throws Exception {
        ObjectMapper mapper = new ObjectMapper()
                .registerModule(new JavaTimeModule())
                .disable(SerializationFeature.WRITE_DATES_AS_TIMESTAMPS);
        try (InputStream stream = App.class.getResourceAsStream("/order.json")) {
            Order order = mapper.readValue(stream, Order.class);
            System.out.println("total " + order.total());
            System.out.println(mapper.writeValueAsString(order));
        }
    }
}
