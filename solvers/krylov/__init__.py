"""Krylov methods, one a file: their iterates come from the span of r, A r, A^2 r, ..."""
