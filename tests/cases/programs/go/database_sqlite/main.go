package main

import (
	"database/sql"
	"fmt"
	"log"

	_ "modernc.org/sqlite"
)

func main() {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, age INT)`); err != nil {
		log.Fatal(err)
	}
	for name, age := range map[string]int{"Ada": 36, "Grace": 45, "Linus": 21} {
		if _, err := db.Exec(`INSERT INTO users (name, age) VALUES (?, ?)`, name, age); err != nil {
			log.Fatal(err)
		}
	}
	rows, err := db.Query(`SELECT name, age FROM users WHERE age > ? ORDER BY age`, 30)
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var age int
		if err := rows.Scan(&name, &age); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s is %d\n", name, age)
	}
}
