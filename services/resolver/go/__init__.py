"""Go: modules by the project's own go.mod and go.sum, else by its imports."""
