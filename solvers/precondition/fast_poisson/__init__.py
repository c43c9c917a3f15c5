"""Fast Poisson solvers: sine, cosine and Fourier transforms, or products with eigenvectors, and tridiagonal systems."""

from solvers.precondition.fast_poisson.preconditioner import FastPoisson

__all__ = ["FastPoisson"]
