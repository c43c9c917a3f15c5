"""Diffusion with a full tensor: consistent, symmetric, positive definite, insulated obstacles."""

import numpy as np
import pytest

from solvers.oblique import oblique_diffusion, tensor_of


@pytest.mark.parametrize("twist", [1 / 4, 1 / 12])
def test_exact_for_quadratic_polynomials(twist):
    """Central differences and bilinear elements are exact for them where K is constant."""
    n, (hx, hy) = 9, (0.1, 0.2)
    xx, yy, xy = tensor_of(0.4, 20.0, (n, n))
    x, y = np.meshgrid(hx * np.arange(n), hy * np.arange(n), indexing="ij")
    A = oblique_diffusion((xx, yy, xy), (hx, hy), twist)
    u = 1.5 * x**2 - 0.7 * x * y + 0.3 * y**2 + x - 2 * y
    image = A.to_field(A @ u.ravel())[1:-1, 1:-1]
    expected = -(xx * 3.0 + 2 * xy * -0.7 + yy * 0.6)[1:-1, 1:-1]
    assert np.abs(image - expected).max() < 1e-10  # coefficients of some 100, u of 10


def test_symmetric_positive_definite_for_every_tensor_that_is():
    rng = np.random.default_rng(0)
    tensor = tensor_of(np.pi * rng.random((8, 8)), 10 ** rng.uniform(0, 3, (8, 8)), (8, 8))
    solid = np.zeros((8, 8), dtype=bool)
    solid[3:5, 2:4] = True
    A = oblique_diffusion(tensor, solid=solid).tocsr().toarray()
    assert np.array_equal(A, A.T)
    assert np.linalg.eigvalsh(A)[0] > 0


def test_nothing_flows_into_obstacles():
    solid = np.zeros((12, 12), dtype=bool)
    solid[4:8, 4:8] = True
    A = oblique_diffusion(tensor_of(0.7, 5.0, (12, 12)), solid=solid)
    flux = A.to_field(A @ np.ones(A.shape[0]))
    assert np.abs(flux[2:-2, 2:-2]).max() < 1e-14  # constants are in equilibrium around them
    assert not A.mask[4:8, 4:8].any()


def test_bad_tensors_are_refused():
    one = np.ones((3, 3))
    with pytest.raises(ValueError, match="positive definite"):
        oblique_diffusion((one, one, 1.1 * one))
    with pytest.raises(ValueError, match="two-dimensional shape"):
        oblique_diffusion((one, one, np.ones((3, 4))))
