package bank.model;

public class Account {
    private final String name;
    private int balance;

    public Account(String name, int balance) {
        this.name = name;
        this.balance = balance;
    }

    public void add(int amount) {
        if (balance + amount < 0) {
            throw new IllegalStateException("not enough money");
        }
        balance += amount;
    }

    @Override
    public String toString() {
        return name + "=" + balance;
    }
}
