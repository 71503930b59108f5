"""The gateway's records: the port, SQLite behind it, and a fake in memory that passes the same suite."""
