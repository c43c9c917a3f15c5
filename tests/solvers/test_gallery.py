"""Model problems: symmetry, null spaces, order of accuracy, physics."""

import numpy as np
import pytest

from solvers import gallery, solve
from solvers.system import System


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
def test_diffusion_is_symmetric_and_knows_its_null_space(shape, boundary):
    a = np.random.default_rng(0).uniform(1, 10, shape)
    A = gallery.diffusion(a, spacing=0.5, boundary=boundary).tocsr().toarray()
    np.testing.assert_allclose(A, A.T)
    eigenvalues = np.linalg.eigvalsh(A)
    if boundary == "dirichlet":
        assert eigenvalues[0] > 0
    else:
        np.testing.assert_allclose(A @ np.ones(len(A)), 0.0, atol=1e-12)  # rounding of entries of size 100
        assert eigenvalues[1] > 1e-3


@pytest.mark.parametrize(
    ("boundary", "exact"),
    [
        ("dirichlet", lambda x: np.sin(np.pi * x)),
        ([("dirichlet", "neumann")], lambda x: np.sin(np.pi * x / 2)),
        ("periodic", lambda x: np.sin(2 * np.pi * x)),
    ],
)
def test_poisson_is_of_second_order(boundary, exact):
    errors = []
    for n in (32, 64, 128):
        h = 1 / (n + 1) if boundary == "dirichlet" else 1 / n
        x = h * np.arange(1, n + 1) if boundary == "dirichlet" else h * (np.arange(n) + 0.5)
        A = gallery.poisson(n, spacing=h, boundary=boundary)
        frequency = {"dirichlet": np.pi, "periodic": 2 * np.pi}.get(
            boundary if isinstance(boundary, str) else "", np.pi / 2
        )
        u = solve(A, frequency**2 * exact(x), rtol=1e-12, throw=False).x
        errors.append(np.max(np.abs(u - exact(x))))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    # the next term of the error is h^2 smaller: 1e-3 at n = 32
    assert np.all(np.abs(orders - 2) < 0.1)


def test_flux_through_layers_is_exact():
    """In one dimension the harmonic average makes the piecewise linear solution of a layered medium exact."""
    a = np.array([1.0, 1.0, 4.0, 4.0, 0.5])
    A = gallery.diffusion(a, boundary=[("dirichlet", "dirichlet")])
    flux = 2.0
    # values at cell centres when the flux is 2, from zero one spacing before the first cell
    u = np.cumsum([1 / a[0], *(0.5 / a[:-1] + 0.5 / a[1:])]) * flux
    b = np.zeros(5)
    b[-1] = a[-1] * (u[-1] + flux / a[-1])
    np.testing.assert_allclose(A @ u, b, atol=1e-14)


def test_jumps():
    field = gallery.jumps((8, 8), contrast=7.0, blocks=2)
    assert set(np.unique(field)) == {1.0, 7.0}
    assert field[0, 0] == field[7, 7] == 1.0
    assert field[0, 7] == field[7, 0] == 7.0


def test_anisotropy_is_along_the_first_axis():
    A = gallery.anisotropic((4, 4), ratio=50.0)
    steep, flat = np.zeros((4, 4)), np.zeros((4, 4))
    steep[::2], flat[:, ::2] = 1.0, 1.0
    energy = [v.ravel() @ (A @ v.ravel()) for v in (steep, flat)]
    # Links that jump: 3 * 4 inner ones and 4 at one edge along the axis of the stripes, 2 * 2 at the edges across it.
    assert energy == [16 * 50 + 4, 16 + 4 * 50]


def test_upwinding_keeps_an_m_matrix():
    A = gallery.convection_diffusion((6, 7), velocity=[30.0, -4.0], diffusivity=0.1, spacing=0.2)
    dense = A.tocsr().toarray()
    off = dense - np.diag(np.diag(dense))
    assert np.all(off <= 0)
    assert np.all(np.linalg.inv(dense) >= -1e-15)
    assert not System(A).symmetric
    # away from the boundary constants are transported without change
    inner = A.to_field(A @ np.ones(42))[1:-1, 1:-1]
    np.testing.assert_allclose(inner, 0.0, atol=1e-12)  # rounding of entries of size 200


def test_transport_is_the_derivative():
    A = gallery.convection_diffusion((50,), velocity=[3.0], diffusivity=1e-30, spacing=0.1)
    u = 2.0 * np.arange(50) * 0.1
    np.testing.assert_allclose((A @ u)[1:], 3.0 * 2.0)  # v du/dx, exact for linear u


def test_helmholtz_is_shifted_poisson():
    shape = (5, 6)
    H, P = gallery.helmholtz(shape, wavenumber=1.5).tocsr(), gallery.poisson(shape).tocsr()
    np.testing.assert_allclose((P - H).toarray(), 1.5**2 * np.eye(30))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="coefficient"):
        gallery.diffusion(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="robin"):
        gallery.diffusion(np.ones(3), boundary="robin")
    with pytest.raises(ValueError, match="velocity"):
        gallery.convection_diffusion((3, 3), velocity=[1.0])
