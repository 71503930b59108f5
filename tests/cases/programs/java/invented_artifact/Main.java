//DEPS com.example.qila:no-such-artifact:1.0
public class Main {
    public static void main(String[] args) {
        System.out.println("never");
    }
}
