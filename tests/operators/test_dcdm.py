"""Deep conjugate directions as published: the network against numpy, its parameters, its proposals in the solver."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from datagen.generate import generate
from datagen.store import Spec, open_store
from operators.directions import Directions
from operators.hybrid import certify
from operators.models import DCDM
from operators.predict import load
from operators.trainer import train
from solvers import Status, StencilOperator, conjugate_directions, gallery


def count(**arguments):
    return sum(p.numel() for p in DCDM(**arguments).parameters())


def test_the_parameters_are_those_of_the_published_networks():
    assert count(dimensions=3) == 97_457
    assert count(dimensions=3, fine_blocks=2, coarse_blocks=5) == 152_881
    # By the layers of the released code in two dimensions: one to 16, fourteen (twenty-two) 16 to 16, a dense one.
    assert count(dimensions=2) == (9 * 16 + 16) + 14 * (9 * 256 + 16) + 17
    assert count(dimensions=2, fine_blocks=2, coarse_blocks=5) == (9 * 16 + 16) + 22 * (9 * 256 + 16) + 17


@pytest.mark.parametrize("grid", [(8, 6), (4, 6, 2), (7, 5), (9,)])
def test_the_network_is_the_published_one_written_out_in_numpy(grid):
    """The layers in the released code's order, with its names la, lb, apa, apb, upa, upb."""
    d = len(grid)
    torch.manual_seed(0)
    model = DCDM(dimensions=d, width=3).double()
    with torch.no_grad():
        for p in model.parameters():  # biases too
            p.copy_(torch.randn_like(p) / 4)
    r = np.random.default_rng(0).normal(size=grid)
    convolutions = [m for m in model.modules() if isinstance(m, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d))]
    layers = iter([tuple(p.detach().numpy() for p in m.parameters()) for m in convolutions])

    def C(u):
        weights, bias = next(layers)
        return np.stack([
            sum(ndimage.correlate(a, k, mode="constant") for a, k in zip(u, kernel, strict=True)) + b
            for kernel, b in zip(weights, bias, strict=True)
        ])  # fmt: skip

    def relu(u):
        return np.maximum(u, 0)

    def pool(u):  # the mean of what there is
        for axis in range(1, d + 1):
            pairs = [u.take(range(i, min(i + 2, u.shape[axis])), axis) for i in range(0, u.shape[axis], 2)]
            u = np.concatenate([pair.mean(axis, keepdims=True) for pair in pairs], axis)
        return u

    first = C(r[None] / np.linalg.norm(r))
    la = relu(C(first))
    lb = relu(C(la))
    la = relu(C(lb)) + la
    lb = relu(C(la))
    apa = pool(lb)
    for _ in range(3):
        apb = relu(C(apa))
        apa = relu(C(apb)) + apa
    up = apa
    for axis, points in enumerate(grid, start=1):
        up = up.repeat(2, axis).take(range(points), axis)
    upa = up + lb
    for _ in range(2):
        upb = relu(C(upa))
        upa = relu(C(upb)) + upa
    expected = C(upa)[0]
    assert next(layers, None) is None
    ours = model(torch.tensor(r)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_the_direction_does_not_depend_on_the_size_of_the_residual():
    torch.manual_seed(0)
    model, r = DCDM(dimensions=2).double(), torch.randn(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(1e-7 * r), model(r))
    assert torch.isfinite(model(0 * r)).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"in_channels": 2}, "one channel to one"),
        ({"dimensions": 4}, "dimensions must be 1, 2 or 3"),
        ({"width": 0}, "width must be at least 1"),
        ({"coarse_blocks": -1}, "coarse_blocks must be at least 0"),
    ],
)
def test_bad_arguments_are_sentences(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        DCDM(**arguments)
    with pytest.raises(ValueError, match=r"residuals of shape \(batch, 1, and 2 grid axes"):
        DCDM(dimensions=2)(torch.zeros(1, 1, 8))


# ---------------------------------------------------------------------------------------------- trained, in the solver


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two Poisson systems of 12 x 12 unknowns, all with one matrix."""
    sizes = {"train": 2, "validation": 1, "test": 2}
    spec = Spec({"name": "poisson", "grid": 14}, 1, sizes, 5, {"method": "auto", "rtol": 1e-8})
    return open_store(generate(spec, tmp_path_factory.mktemp("poisson"), executor="serial"))


@pytest.fixture(scope="module")
def model(store, tmp_path_factory):
    torch.set_num_threads(1)
    config = {
        "seed": 0,
        "dataset": {"path": "memory"},
        "task": {"name": "linear_system", "residuals": "ritz", "each": 100, "depth": 60},
        "model": {"name": "dcdm"},
        "loss": "mse",
        "optimizer": {"name": "adam", "lr": 3e-3},
        "scheduler": {"name": "cosine", "warmup": 0.1},
        "trainer": {"epochs": 5, "batch_size": 10, "gradient_clip": None, "device": "cpu"},
        "out": str(tmp_path_factory.mktemp("dcdm") / "run"),
    }
    return load(train(config, store).out / "best.pt", "cpu")


def test_trained_directions_beat_steepest_descent_and_the_certificate_is_true(store, model):
    system = store.family.system(store.sample("test", 0))
    result = conjugate_directions(system.A, system.b, Directions(model, system.A), rtol=1e-4)
    assert result.converged
    assert result.residual_norm <= 1e-4 * np.linalg.norm(system.b)
    # What training is for: as many directions from the untrained network take more than twice the iterations.
    torch.manual_seed(0)
    fresh = DCDM(dimensions=2)

    def untrained(r):
        with torch.no_grad():
            return fresh(torch.tensor(r, dtype=torch.float32).reshape(1, 1, 12, 12)).numpy().ravel()

    assert 2 * result.iterations < conjugate_directions(system.A, system.b, untrained, rtol=1e-4).iterations
    # The network is homogeneous of degree zero: 1e-150 of the right-hand side takes the same way.
    small = conjugate_directions(system.A, 1e-150 * system.b, Directions(model, system.A), rtol=1e-4)
    assert small.iterations == pytest.approx(result.iterations, abs=1)


@pytest.mark.parametrize(
    "A",
    [
        gallery.poisson((21, 9)),
        gallery.anisotropic((12, 12)),
        gallery.diffusion(np.exp(np.random.default_rng(0).normal(size=(12, 12)))),
    ],
    ids=["another grid", "another stencil's weights", "coefficients"],
)
def test_other_matrices_are_solved_all_the_same(A, model):
    b = np.random.default_rng(1).normal(size=A.shape[0])
    result = conjugate_directions(A, b, Directions(model, A), rtol=1e-8)
    assert result.converged
    assert np.linalg.norm(b - A @ result.x) <= 1.001e-8 * np.linalg.norm(b)


def test_an_indefinite_matrix_ends_as_what_it_is(model):
    A = gallery.poisson((12, 12))
    centre = A.offsets.index((0, 0))
    shifted = np.array(A.coefficients)
    shifted[centre] -= 1.0
    A = StencilOperator(A.offsets, shifted, A.grid_shape, A.spacing, A.boundary, A.centring)
    b = np.random.default_rng(2).normal(size=144)
    result = conjugate_directions(A, b, Directions(model, A), rtol=1e-8)
    assert result.status is Status.INDEFINITE_OPERATOR
    assert np.isfinite(result.x).all()
    assert result.residual_norm <= np.linalg.norm(b)


def test_a_model_of_another_dimension_or_task_is_refused(model, make_checkpoint):
    with pytest.raises(ValueError, match="trained on grids of 2 axes, and A has 3"):
        Directions(model, gallery.poisson((4, 4, 4)))
    with pytest.raises(ValueError, match="must be a real StencilOperator"):
        Directions(model, gallery.poisson((12, 12)).tocsr())
    with pytest.raises(ValueError, match="task=linear_system, but this one was trained with task=time_pairs"):
        Directions(make_checkpoint(), gallery.poisson((32,)))


def test_weights_that_are_spoilt_do_no_harm(store, model):
    system = store.family.system(store.sample("test", 0))
    directions = Directions(model, system.A)
    bias = model.operator.module.head.bias
    before = bias.item()
    try:
        torch.nn.init.constant_(bias, float("nan"))
        result = conjugate_directions(system.A, system.b, directions, rtol=1e-8)
        certified = certify(model, store.family, store.sample("test", 0))
    finally:
        torch.nn.init.constant_(bias, before)
    assert result.converged
    assert f"{result.iterations} for useless proposals" in result.reason
    assert certified.converged
    assert "not finite" in certified.result.reason


def test_certify_lets_it_propose_every_direction(store, model):
    sample = store.sample("test", 1)
    certified = certify(model, store.family, sample, 1e-6)
    system = store.family.system(sample)
    assert certified.result.method.startswith("conjugate_directions")
    x = system.to_vector(certified.solution["potential"])
    assert np.linalg.norm(system.b - system.A @ x) <= 1e-6 * np.linalg.norm(system.b) * (1 + 1e-12)
