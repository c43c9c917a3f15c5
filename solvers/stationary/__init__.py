"""Stationary iterations and Chebyshev's, one method a file, each kernel beside its method."""
