"""sandboxd: the first process of every sandbox. The standard library is all it has."""
