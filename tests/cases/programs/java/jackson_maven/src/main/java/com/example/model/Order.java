package com.example.model;

import java.time.LocalDate;
import java.util.List;

public record Order(String id, LocalDate date, List<Line> lines) {
    public record Line(String product, int count, double price) {}

    public double total() {
        return lines.stream().mapToDouble(line -> line.count() * line.price()).sum();
    }
}
