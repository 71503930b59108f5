"""Node: packages from npm, by the project's own manifest and lock, else by its imports."""
