package bank;

import bank.model.Account;
import bank.service.Transfers;

public class Main {
    public static void main(String[] args) {
        Account one = new Account("one", 100);
        Account two = new Account("two", 0);
        Transfers.move(one, two, 30);
        System.out.println(one + " " + two);
    }
}
