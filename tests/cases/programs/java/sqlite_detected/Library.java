import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;

public class Library {
    public static void main(String[] args) throws Exception {
        try (Connection db = DriverManager.getConnection("jdbc:sqlite::memory:")) {
            try (Statement statement = db.createStatement()) {
                statement.execute("create table books (title text, year integer)");
            }
            try (PreparedStatement insert = db.prepareStatement("insert into books values (?, ?)")) {
                insert.setString(1, "Godaan");
                insert.setInt(2, 1936);
                insert.executeUpdate();
            }
            try (Statement query = db.createStatement(); ResultSet rows = query.executeQuery("select * from books")) {
                while (rows.next()) {
                    System.out.println(rows.getString("title") + " " + rows.getInt("year"));
                }
            }
        }
    }
}
