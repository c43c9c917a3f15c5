"""The matrices behind published speed-ups of recycling, rebuilt with their faults, which are not those of Darcy flow.

H. Wang, Z. Hao, J. Wang, Z. Geng, Z. Wang, B. Li, F. Wu, Accelerating data generation for neural operators via Krylov
subspace recycling, ICLR 2024 (arXiv 2401.09516), report up to 30 times fewer iterations than GMRES(40) for Darcy flow
and Helmholtz problems. The generators published with it (wanghong1700/NO-DataGen-SKR, exp_generate_mpi_*) build

    (A u)(p) = 4 a(p) u(p) - sum over the four neighbours q of a(q) u(q),

where in the sum the coefficient of the neighbour in the row before is taken two columns too far to the left. This is
neither symmetric nor definite, and no discretisation of -div(a grad u).
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp


def periodic_field(points: int, rng: np.random.Generator, alpha: float = 2.5, tau: float = 7.0) -> np.ndarray:
    """Gaussian random field on a periodic unit square, shape (points, points), standard deviation about 0.18."""
    k = np.fft.fftfreq(points, 1.0 / points)
    size = tau ** (alpha - 1.0) * (4.0 * np.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2) + tau**2) ** (-alpha / 2.0)
    size[0, 0] = 0.0
    xi = rng.standard_normal((points, points)) + 1j * rng.standard_normal((points, points))
    return np.fft.ifft2(size * xi, norm="forward").real


def misassembled_sequence(length: int, points: int, seed: int) -> Iterator[tuple[sp.csr_array, np.ndarray, np.ndarray]]:
    """Independent systems of points^2 unknowns, b = h^2, and the field of the coefficients as context."""
    rng = np.random.default_rng(seed)
    n = points * points
    for _ in range(length):
        log_a = periodic_field(points + 2, rng)
        a = np.exp(log_a)
        inner, west, east = a[1:-1, 1:-1], a[1:-1, :-2].copy(), a[1:-1, 2:].copy()
        west[:, 0] = east[:, -1] = 0.0
        north, south = a[:-2, 1:-1].ravel(), a[2:, 1:-1].ravel()
        diagonals = [4.0 * inner.ravel(), -west.ravel()[1:], -east.ravel()[:-1], -south[: n - points]]
        shifted = -north[points - 2 : n - 2]  # north[points:] would be right
        A = sp.diags_array([*diagonals, shifted], offsets=[0, -1, 1, points, -points], shape=(n, n), format="csr")
        yield sp.csr_array(A), np.full(n, 1.0 / (points + 1) ** 2), log_a.ravel()
