"""PDE families, one a file; importing a file registers its family."""
