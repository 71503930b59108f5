package com.example;

import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVRecord;

import java.io.StringReader;

public class Reader {
    public static void main(String[] args) throws Exception {
        for (CSVRecord row : CSVFormat.DEFAULT.parse(new StringReader("a,1\nb,2\n"))) {
            System.out.println(row.get(0) + "=" + row.get(1));
        }
    }
}
