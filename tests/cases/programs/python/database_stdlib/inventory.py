import sqlite3
from contextlib import closing

with closing(sqlite3.connect(":memory:")) as db:
    db.execute("create table stock (name text primary key, amount integer not null)")
    db.executemany("insert into stock values (?, ?)", [("rope", 3), ("lamp", 7), ("map", 1)])
    print(db.execute("select count(*) from stock").fetchone()[0], "rows")
    print(db.execute("select name, amount from stock order by amount desc limit 1").fetchone())
