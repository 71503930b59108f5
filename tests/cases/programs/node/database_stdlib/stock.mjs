import { DatabaseSync } from 'node:sqlite';

const db = new DatabaseSync(':memory:');
db.exec('create table stock (name text primary key, amount integer not null)');
const insert = db.prepare('insert into stock values (?, ?)');
for (const row of [['rope', 3], ['lamp', 7], ['map', 1]]) insert.run(...row);
const most = db.prepare('select * from stock order by amount desc limit 1').get();
console.log(most.name, most.amount);
console.log(db.prepare('select count(*) as rows from stock').get().rows, 'rows');
