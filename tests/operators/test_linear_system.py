"""The task of linear systems: the loss against dense algebra, the residuals against what they claim to be, training."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from datagen.family import LinearSystem, build
from datagen.generate import generate
from datagen.store import Spec, open_store
from operators.data import GaussianNormaliser
from operators.losses import mse, relative_l2
from operators.models.interpolation_network import LearnedCycle
from operators.operator import Operator
from operators.tasks import tasks
from operators.tasks.linear_system import stencil_product
from operators.tasks.residuals import cg_residuals, ritz_residuals
from operators.trainer import train
from solvers import gallery

SOLVER = {"method": "auto", "rtol": 1e-8}
SIZES = {"train": 16, "validation": 4, "test": 1}
PDES = {
    "poisson": {"name": "poisson", "grid": 17},
    "darcy": {"name": "darcy", "grid": 12},
    "thermal_plate": {"name": "thermal_plate", "grid": [10, 16]},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Small generated datasets by the name of their family."""
    made = {}

    def store(pde):
        name = pde["name"]
        if name not in made:
            spec = Spec(pde, seed=1, samples=SIZES, shard_size=21, solver=SOLVER)
            made[name] = open_store(generate(spec, tmp_path_factory.mktemp(name), executor="serial"))
        return made[name]

    return store


def through(direction):
    """An operator that answers with a given direction, whatever it is asked."""
    one = GaussianNormaliser(torch.zeros(1), torch.ones(1))

    class Answer(nn.Module):
        def forward(self, x):
            return direction

    return Operator(Answer(), one, one)


@pytest.mark.parametrize(
    "A",
    [
        gallery.poisson((7, 5)),
        gallery.poisson((4, 5, 6)),
        gallery.poisson((6, 7), boundary="periodic"),
        build("thermal_plate", grid=[10, 16]),
        build("darcy", dimension=3, grid=[5, 4, 6]),
    ],
    ids=["2D", "3D", "periodic", "mask", "coefficients"],
)
def test_the_product_is_the_matrix(A):
    if hasattr(A, "system"):
        A = A.system(A.sample(np.random.default_rng(0))).A
    x = np.random.default_rng(0).normal(size=A.shape[0])
    stencil = torch.tensor(A.coefficients)[None]
    ours = stencil_product(stencil, A.offsets, torch.tensor(A.to_field(x))[None, None])
    np.testing.assert_allclose(A.to_vector(ours[0, 0].numpy()), A.tocsr() @ x, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", PDES)
def test_the_loss_is_the_published_one(name, stores):
    """Against vectors and matrices, sample by sample: |r - a A d|^2 with a = (d r) / (d A d) and |r| = 1."""
    store = stores(PDES[name])
    task = tasks.build("linear_system", store, each=2)
    batch = task.examples("train").batch(torch.arange(6))
    torch.testing.assert_close(batch.targets, batch.inputs)
    direction = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    cost = task.loss(through(direction), batch, mse)
    root = task.loss(through(-3 * direction), batch, relative_l2)  # no scale, no sign
    for place in range(6):
        A = store.family.system(store.sample("train", place // 2)).A
        r, d = (A.to_vector(f[place, 0].double().numpy()) for f in (batch.targets, direction))
        step = (d @ r) / (d @ (A @ d))
        expected = np.sum((r - step * (A @ d)) ** 2)
        # The mean over the grid of a residual whose mean square over the unknowns is 1.
        assert cost[place, 0].item() * batch.targets[0].numel() == pytest.approx(expected, rel=1e-4)
        assert np.sum(r**2) == pytest.approx(len(r), rel=1e-5)
        assert root[place, 0].item() == pytest.approx(np.sqrt(expected / np.sum(r**2)), rel=1e-4)


@pytest.mark.parametrize("name", PDES)
def test_the_solution_is_the_best_direction_and_zero_is_none(name, stores):
    store = stores(PDES[name])
    task = tasks.build("linear_system", store, each=1)
    batch = task.examples("validation").batch(torch.arange(4))
    solutions = []
    for sample in range(4):
        A = store.family.system(store.sample("validation", sample)).A
        x = np.linalg.solve(A.tocsr().toarray(), A.to_vector(batch.targets[sample, 0].double().numpy()))
        solutions.append(A.to_field(x))
    direction = torch.tensor(np.array(solutions)[:, None], dtype=torch.float32)
    # A d cancels by the condition of A, up to 1e3 here, in single precision.
    assert task.loss(through(direction), batch, relative_l2).max() < 1e-3
    nothing = torch.zeros_like(direction, requires_grad=True)
    cost = task.loss(through(nothing), batch, relative_l2)
    torch.testing.assert_close(cost, torch.ones(4, 1))
    cost.sum().backward()
    assert torch.isfinite(nothing.grad).all()


def test_residuals_are_a_function_of_seed_split_and_sample(stores):
    store = stores(PDES["darcy"])
    examples = tasks.build("linear_system", store).examples("train")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(1))
    batch = examples.batch(order)
    anew = tasks.build("linear_system", store, memory_gb=0.0).examples("train")
    assert not anew.keep
    for place in (0, 7, 20):
        one = anew.batch(order[[place]])
        assert torch.equal(one.inputs[0], batch.inputs[place])
        assert torch.equal(one.stencil[0], batch.stencil[place])
    copied = pickle.loads(pickle.dumps(examples)).batch(order[:3])
    assert torch.equal(copied.inputs, batch.inputs[:3])
    assert torch.equal(copied.to("cpu").stencil, batch.stencil[:3])
    other = tasks.build("linear_system", store, seed=1).examples("train").batch(order)
    assert not torch.allclose(other.inputs, batch.inputs)
    # Residuals differ, but for the sources themselves: that of this family is one and the same in every sample.
    assert len(torch.unique(batch.inputs.flatten(1), dim=0)) > 0.9 * len(examples)


def textbook(A, b, iterations):
    """Residual of conjugate gradients after some iterations, from zero."""
    r = b.copy()
    p, rho = r.copy(), r @ r
    for _ in range(iterations):
        if np.sqrt(r @ r) <= 1e-6 * np.linalg.norm(b):
            break
        q = A @ p
        r = r - rho / (p @ q) * q
        rho, before = r @ r, rho
        p = r + rho / before * p
    return r


def test_cg_residuals_are_of_conjugate_gradients():
    A = gallery.poisson((9, 8))
    b = np.random.default_rng(3).normal(size=72)
    found = cg_residuals(LinearSystem(A, b, lambda x: x), 3, 12, np.random.default_rng(0))
    rng = np.random.default_rng(0)  # the same draws
    for number, residual in enumerate(found):
        right_hand_side = b if number == 0 else rng.standard_normal(72)
        expected = textbook(A.tocsr(), right_hand_side, int(rng.integers(13)))
        np.testing.assert_allclose(residual, expected, atol=1e-9 * np.linalg.norm(right_hand_side))


def test_ritz_residuals_weigh_the_lower_half_nine_times():
    A = gallery.poisson((6, 5))
    system = LinearSystem(A, np.ones(30), lambda x: x)
    # As many vectors as unknowns: Ritz vectors are eigenvectors, whose coefficients can be looked at.
    residuals = ritz_residuals(system, 4000, 30, np.random.default_rng(0))
    values, vectors = np.linalg.eigh(A.tocsr().toarray())
    assert np.diff(values).min() > 1e-3  # so that eigenvectors are unique
    sizes = np.sqrt(np.mean((residuals @ vectors) ** 2, axis=0))
    low = 15 + 2  # i < m / 2 + m / 20, whose last is rounded up
    expected = np.where(np.arange(30) < low, 9.0, 1.0)
    np.testing.assert_allclose(sizes, expected, rtol=0.06)  # 4000 draws: 5 standard deviations of a deviation
    # Fewer vectors span a Krylov space, which ends early where it is all there is.
    few = ritz_residuals(system, 100, 7, np.random.default_rng(0))
    assert np.linalg.matrix_rank(few) == 7
    identity = LinearSystem(gallery.poisson((2,)), np.ones(2), lambda x: x)
    assert np.linalg.matrix_rank(ritz_residuals(identity, 5, 50, np.random.default_rng(0))) == 2


@pytest.mark.parametrize(("name", "residuals"), [("poisson", "ritz"), ("darcy", "cg")])
def test_directions_are_learned(name, residuals, stores, make_config):
    store = stores(PDES[name])
    arguments = {"residuals": residuals, "diagonal": name == "darcy"}
    task = tasks.build("linear_system", store, **arguments)
    assert [c.name for c in task.inputs] == ["residual", "diagonal"][: 1 + arguments["diagonal"]]
    model = {"name": "fno", "n_modes": [8, 8], "hidden_channels": 12, "n_layers": 2}
    config = make_config(
        task={"name": "linear_system", **arguments},
        model=model,
        trainer={"epochs": 5, "batch_size": 8},
        optimizer={"lr": 5e-3},
    )
    history = train(config, store).history
    losses = [row["train_loss"] for row in history]
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0]
    # What learning means here: better than the gradient, d = r, which is steepest descent.
    batch = task.examples("validation").batch(torch.arange(16))
    gradient = task.loss(through(batch.targets), batch, relative_l2).mean().item()
    assert history[-1]["validation_loss"] < gradient


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"residuals": "lanczos"}, "unknown residuals 'lanczos'"),
        ({"each": 0}, "each must be at least 1"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"lanczos": 3}, "no argument 'lanczos'"),
    ],
)
def test_bad_arguments_are_sentences(arguments, sentence, stores):
    with pytest.raises(ValueError, match=sentence):
        tasks.build("linear_system", stores(PDES["darcy"]), **arguments)


@pytest.mark.parametrize(
    ("pde", "sentence"),
    [
        ({"name": "burgers", "grid": 16, "nu": 0.1, "frames": 2, "final_time": 0.1}, "evolve in time"),
        ({"name": "helmholtz", "grid": 20}, "not symmetric positive definite"),
    ],
)
def test_other_systems_are_refused(pde, sentence, tmp_path):
    spec = Spec(pde, seed=1, samples={"train": 2, "validation": 1, "test": 0}, shard_size=3, solver=SOLVER)
    store = open_store(generate(spec, tmp_path / "data", executor="serial"))
    with pytest.raises(ValueError, match=sentence):
        tasks.build("linear_system", store, each=2).examples("train").batch(torch.arange(4))


@pytest.mark.parametrize(
    ("A", "sentence"),
    [
        (gallery.convection_diffusion((6, 5), (1.0, 2.0)), "are not symmetric"),
        (gallery.poisson((6, 5)).tocsr(), "are csr_array of dtype float64"),
    ],
)
def test_matrices_of_another_kind_are_refused(A, sentence, stores, monkeypatch):
    store = stores(PDES["darcy"])
    monkeypatch.setattr(type(store.family), "system", lambda self, sample: LinearSystem(A, np.ones(30), lambda x: x))
    with pytest.raises(ValueError, match=sentence):
        tasks.build("linear_system", store)


def test_the_energy_norm_measures_what_a_step_leaves_of_the_error(stores):
    """Against dense algebra: ``||e - alpha d||_A / ||e||_A`` for random directions."""
    task = tasks.build("linear_system", stores(PDES["darcy"]), each=2, stencil=True, norm="energy")
    batch = task.examples("train").batch(torch.tensor([0, 1, 5]))
    # The residual, and the matrix as the model sees it: its coefficients over the largest.
    assert batch.inputs.shape[1] == len(task.inputs) == 1 + len(task.offsets)
    assert torch.all(batch.inputs[:, 1:].abs().amax(dim=(1, 2, 3)) == 1)
    d = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0))
    losses = relative_l2(task.predict(through(d), batch), batch.targets, periodic=None)[:, 0]
    for number, sample in enumerate((0, 0, 2)):
        A = task.store.family.system(task.store.sample("train", sample)).A.tocsr().toarray()
        r, direction = (part[number].numpy().astype(float).ravel() for part in (batch.targets, d))
        e = np.linalg.solve(A, r)
        left = e - direction * (direction @ r) / (direction @ A @ direction)
        # Fields are in single precision.
        assert abs(float(losses[number]) - np.sqrt(left @ A @ left / (e @ A @ e))) < 1e-4
    assert float(losses.min()) < 1.0


def test_the_learned_multigrid_trains_by_this_task(stores):
    """Its loss at the start is that of the classical cycle, far below one; a step of training moves its weights."""
    task = tasks.build("linear_system", stores(PDES["darcy"]), each=2, stencil=True, norm="energy")
    model = LearnedCycle(len(task.inputs))
    batch = task.examples("train").batch(torch.arange(4))
    operator = Operator(model, *task.normalisers())
    loss = task.loss(operator, batch, lambda p, t: relative_l2(p, t, periodic=None)).mean()
    assert loss < 0.3  # a V(2,2)-cycle leaves 0.1 of the error or so, see `Multigrid`
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    with pytest.raises(ValueError, match="stencil=true"):
        LearnedCycle(2)
