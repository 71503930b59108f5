package bank.service;

import bank.model.Account;

public final class Transfers {
    private Transfers() {}

    public static void move(Account from, Account to, int amount) {
        from.add(-amount);
        to.add(amount);
    }
}
