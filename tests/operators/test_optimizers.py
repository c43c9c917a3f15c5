"""Optimizers by name: what each computes, which parameters it sets apart, and that each trains three kinds of model."""

import inspect
import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

import configs
from operators.models import models
from operators.optimizers import (
    ComplexAdamW,
    attention_for,
    backward,
    build_optimizer,
    complex_parameters,
    groupings,
    is_second_order,
    matrix_parameters,
    optimizers,
)

YAML = Path(configs.__file__).parent / "optimizer"
LIBRARY = {"soap", "muon", "adahessian", "adamp", "shampoo"}


def small_fno() -> nn.Module:
    return models.build("fno", n_modes=[6, 6], in_channels=1, out_channels=1, hidden_channels=10, n_layers=2)


class SmallUNet(nn.Module):
    """Down, up, and a skip, with group normalisation."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.GroupNorm(2, width), nn.GELU())
        self.middle = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.GELU())
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Conv2d(2 * width, 1, 3, padding=1)

    def forward(self, x):
        skip = self.down(x)
        return self.out(torch.cat([skip, self.up(self.middle(skip))], dim=1))


class SmallTransformer(nn.Module):
    """Attention between 4 x 4 patches by `scaled_dot_product_attention`."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Conv2d(1, width, 4, stride=4)
        self.position = nn.Parameter(torch.randn(16, width) * 0.1)
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.recover = nn.ConvTranspose2d(width, 1, 4, stride=4)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).mT + self.position
        q, k, v = self.qkv(self.norm(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.mix(attended.transpose(1, 2).flatten(2))
        tokens = tokens + self.mlp(self.norm2(tokens))
        return self.recover(tokens.mT.unflatten(2, (4, 4)))


MODELS = {"fno": small_fno, "unet": SmallUNet, "attention": SmallTransformer}


@pytest.fixture(scope="module")
def problem():
    """Smooth periodic fields and their smoothing by (1 + |k|^2)^-1."""
    generator = np.random.default_rng(20261126)
    k = np.fft.fftfreq(16, 1 / 16)
    square = k[:, None] ** 2 + k**2
    x = np.fft.ifft2(np.fft.fft2(generator.normal(size=(8, 1, 16, 16))) / (1 + square / 4)).real
    y = np.fft.ifft2(np.fft.fft2(x) / (1 + square)).real
    return tuple(torch.from_numpy(field / field.std()).float() for field in (x, y))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", sorted(optimizers))
def test_each_trains_an_fno_a_unet_and_an_attention_model(name, model, problem):
    if name in LIBRARY:
        pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(20261126)
    module, (x, y) = MODELS[model](), problem
    given = yaml.safe_load((YAML / f"{name}.yaml").read_text())
    given = {key: float(value) if isinstance(value, str) and key != "name" else value for key, value in given.items()}
    optimizer = build_optimizer(module, **given)
    history = []
    for _ in range(50):
        with attention_for(optimizer):
            loss = ((module(x) - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()
        optimizer.zero_grad()
        backward(loss, optimizer)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
    # Predicting zero costs 1, and so does about what an untrained model says; a fifth less is learned, not luck.
    assert np.mean(history[-5:]) < 0.8 * history[0], history[::7]


@pytest.mark.parametrize("name", sorted(optimizers))
def test_each_goes_on_from_its_saved_state_to_the_bit(name, problem):
    if name in LIBRARY:
        pytest.importorskip("pytorch_optimizer")
    x, y = problem

    def make():
        torch.manual_seed(11)
        module = small_fno()
        groups = {"name": "poseidon"} if name == "muon" else None
        return module, build_optimizer(module, name, lr=1e-3, groups=groups)

    def advance(module, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)  # AdaHessian draws
            optimizer.zero_grad()
            backward((module(x) - y).square().mean(), optimizer)
            optimizer.step()

    unbroken, stopped, resumed = make(), make(), make()
    advance(*unbroken, range(25))
    advance(*stopped, range(12))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in stopped], file)
    file.seek(0)
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    advance(*resumed, range(12, 25))
    for a, b in zip(unbroken[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(a, b)


# ------------------------------------------------------------------------------------------------ complex numbers


def complex_adamw_by_hand(w, gradients, lr, beta1, beta2, eps, decay):
    """The docstring's formula, in numpy's complex arithmetic."""
    m, v = np.zeros_like(w), np.zeros(w.shape)
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * abs(g) ** 2
        w = (1 - lr * decay) * w - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return w


def run_complex(w, gradients, **arguments):
    weight = nn.Parameter(torch.view_as_real(torch.from_numpy(w)).clone())
    optimizer = ComplexAdamW([{"params": [weight], "complex_pairs": True}], **arguments)
    for g in gradients:
        weight.grad = torch.view_as_real(torch.from_numpy(g)).clone()
        optimizer.step()
    return torch.view_as_complex(weight.detach()).numpy()


@pytest.fixture
def complex_draws():
    generator = np.random.default_rng(1126)
    draw = generator.normal(size=(2, 8, 3, 4))
    gradients = draw[0] + 1j * draw[1] * 5.0
    return gradients[0] * 0.3, list(gradients[1:])


def test_complex_adamw_is_its_formula(complex_draws):
    w, gradients = complex_draws
    arguments = dict(lr=0.03, betas=(0.8, 0.99), eps=1e-2, weight_decay=0.2)
    expected = complex_adamw_by_hand(w, gradients, 0.03, 0.8, 0.99, 1e-2, 0.2)
    # Double precision, seven steps of a few operations each.
    np.testing.assert_allclose(run_complex(w, gradients, **arguments), expected, rtol=1e-13)


def test_complex_adamw_is_neuraloperators_but_for_eps_and_the_order_of_decay(complex_draws):
    w, gradients = complex_draws
    lr, (beta1, beta2) = 0.03, (0.9, 0.999)
    # neuraloperator/training/adamw.py, as published: eps 0 makes its place irrelevant, decay 0 its order.
    expected, m, v = w.copy(), np.zeros_like(w), np.zeros(w.shape)
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = (beta2 * v + (1 - beta2) * g * g.conj()).real
        expected = expected - lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / np.sqrt(v)
    np.testing.assert_allclose(run_complex(w, gradients, lr=lr, eps=0.0), expected, rtol=1e-13)


def test_complex_adamw_turns_with_the_complex_plane_and_adamw_does_not(complex_draws):
    w, gradients = complex_draws
    turn = np.exp(0.7j)
    turned = run_complex(turn * w, [turn * g for g in gradients], lr=0.1)
    np.testing.assert_allclose(turned, turn * run_complex(w, gradients, lr=0.1), rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_of_real_numbers_complex_adamw_is_torchs(decay, complex_draws):
    w, gradients = complex_draws
    weights = [nn.Parameter(torch.from_numpy(w.real.copy())) for _ in range(2)]
    arguments = dict(lr=0.03, betas=(0.9, 0.99), eps=1e-6, weight_decay=decay)
    ours, theirs = ComplexAdamW([weights[0]], **arguments), torch.optim.AdamW([weights[1]], **arguments)
    for g in gradients:
        for weight, optimizer in zip(weights, (ours, theirs), strict=True):
            weight.grad = torch.from_numpy(g.real.copy())
            optimizer.step()
    expected = weights[1].detach().numpy()
    np.testing.assert_allclose(weights[0].detach().numpy(), expected, rtol=1e-13)
    # ... and so are complex numbers whose imaginary part and its gradient are zero.
    padded = run_complex(w.real + 0j, [g.real + 0j for g in gradients], **arguments)
    np.testing.assert_allclose(padded.real, expected, rtol=1e-13)
    assert not padded.imag.any()


def test_complex_adamw_refuses_what_it_cannot_do():
    weight = nn.Parameter(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"last axis \(real, imaginary\), got shape \(4, 3\)"):
        ComplexAdamW([{"params": [weight], "complex_pairs": True}])
    with pytest.raises(ValueError, match=r"optimizer.lr must not be negative"):
        ComplexAdamW([weight], lr=-1.0)
    with pytest.raises(ValueError, match=r"optimizer.lr must not be negative, got nan"):
        ComplexAdamW([weight], lr=math.nan)
    with pytest.raises(ValueError, match=r"optimizer.betas must lie in \[0, 1\)"):
        ComplexAdamW([weight], betas=(0.9, 1.0))


# ---------------------------------------------------------------------------------------------------------- groups


def test_spectral_weights_are_told_by_their_layer_not_by_their_shape():
    model = models.build("tfno", n_modes=[6, 6], in_channels=1, out_channels=2, hidden_channels=8, n_layers=1)
    # The projection's weight (2, 16) has a first, a hidden (16, 2)-like one a last axis of 2: neither is complex.
    names = {id(p): name for name, p in model.named_parameters()}
    complex_names = {names[id(p)] for p in complex_parameters(model)}
    assert complex_names == {n for n in names.values() if "convolution.weight" in n}
    assert any(n.endswith("factors.3") for n in complex_names)


def test_muon_orthogonalises_matrices_and_leaves_the_rest_to_adamw():
    pytest.importorskip("pytorch_optimizer")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 12, 3), nn.Conv2d(12, 16, 3), nn.Flatten(), nn.Linear(16, 1))
    assert [tuple(p.shape) for p in matrix_parameters(module)] == [(12, 1, 3, 3), (16, 12, 3, 3)]
    lr = 0.01
    optimizer = build_optimizer(module, "muon", lr=lr)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    for name, p in module.named_parameters():
        change = (p.detach() - before[name]) / lr
        if name in ("0.weight", "1.weight"):
            rows = change.flatten(1)
            values = torch.linalg.svdvals(rows) / (0.2 * math.sqrt(max(rows.shape)))
            # Five Newton-Schulz steps bring all singular values into (0.7, 1.2), by design not nearer to 1.
            assert 0.6 < values.min() < values.max() < 1.3
        else:
            # The first step of Adam has the gradient's sign for a direction and lr for a length.
            torch.testing.assert_close(change, -p.grad.sign(), rtol=1e-4, atol=1e-4)


class TimeNorm(nn.Module):
    time_conditioning = True

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Linear(1, width), nn.Linear(1, width)


def scot_like() -> nn.Module:
    """Names as scOT has them."""
    block = nn.ModuleDict(
        {
            "norm": TimeNorm(4),
            "plain_norm": nn.LayerNorm(4),
            "attention": nn.Linear(4, 4),
            "continuous_position_bias_mlp": nn.Linear(2, 3),
        }
    )
    return nn.ModuleDict(
        {
            "embeddings": nn.ModuleDict({"projection": nn.Conv2d(1, 4, 2), "norm": TimeNorm(4)}),
            "encoder": block,
            "patch_recovery": nn.ConvTranspose2d(4, 1, 2),
        }
    )


def test_poseidons_groups():
    module = scot_like()
    optimizer = build_optimizer(
        module, "adamw", lr=5e-5, weight_decay=1e-6,
        groups={"name": "poseidon", "embedding_recovery_lr": 5e-4, "time_lr": 3e-4},
    )  # fmt: skip
    names = {id(p): name for name, p in module.named_parameters()}
    got = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert len(got) == len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, pair in got.items():
        if name.startswith(("embeddings", "patch_recovery")):
            expected = (5e-4, 1e-6)  # also the norm in the embedding
        elif name.startswith("encoder.norm"):
            expected = (3e-4, 0.0)
        elif name == "encoder.attention.weight":
            expected = (5e-5, 1e-6)
        else:  # biases, layer norms, and the whole MLP with "bias" in its name
            expected = (5e-5, 0.0)
        assert pair == expected, name


def test_groups_keep_their_rates_where_an_optimizer_splits_them():
    pytest.importorskip("pytorch_optimizer")
    module = nn.ModuleDict({"embeddings": nn.Linear(16, 16), "body": nn.Linear(16, 16)})
    optimizer = build_optimizer(
        module, "muon", lr=1e-3, weight_decay=0.1, groups={"name": "poseidon", "embedding_recovery_lr": 1e-2}
    )
    rates = {(g["use_muon"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert rates == {(True, 1e-2, 0.1), (False, 1e-2, 0.1), (True, 1e-3, 0.1), (False, 1e-3, 0.0)}


def test_frozen_parameters_are_left_out():
    model = small_fno()
    for p in model.lifting.parameters():
        p.requires_grad_(False)
    for arguments in ({}, {"groups": {"name": "uniform"}}, {"groups": {"name": "poseidon"}}):
        optimizer = build_optimizer(model, "adamw", lr=1e-3, **arguments)
        chosen = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert chosen == {id(p) for p in model.parameters() if p.requires_grad}
    with pytest.raises(ValueError, match="nothing to train: FNO has no parameter"):
        build_optimizer(model.requires_grad_(False), "adamw", lr=1e-3)


@pytest.mark.parametrize("name", sorted(optimizers))
def test_numbers_out_of_range_are_a_sentence(name):
    if name in LIBRARY:
        pytest.importorskip("pytorch_optimizer")
    known = inspect.signature(optimizers[name]).parameters
    for argument, bad, words in (
        ("lr", -1.0, "a number of at least 0"),
        ("lr", "fast", "a number of at least 0"),
        ("lr", math.nan, "a number of at least 0"),
        ("weight_decay", -1.0, "a number of at least 0"),
        ("betas", [0.9, 1.0], r"in \[0, 1\)"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("precondition_frequency", 0, "a whole number of at least 1"),
        ("update_period", 0.5, "a whole number of at least 1"),
    ):
        if argument in known:
            with pytest.raises(ValueError, match=f"optimizer.{argument} must be {words}, got "):
                build_optimizer(small_fno(), name, **{"lr": 1e-3, argument: bad})
    with pytest.raises(ValueError, match=r"optimizer.lr must be a number of at least 0, got -2.0"):
        build_optimizer(small_fno(), name, lr=1e-3, groups={"name": "poseidon", "time_lr": 1.0, "lr": -2.0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adamv"}, "unknown optimizer 'adamv'. Did you mean 'adam' or 'adamw'"),
        ({"name": "adamw", "learning_rate": 1e-3}, "has no argument 'learning_rate'"),
        ({"name": "adamw", "lr": 1e-3, "groups": {"name": "posidon"}}, "unknown parameter grouping 'posidon'"),
        ({"name": "adamw", "lr": 1e-3, "groups": {"name": "poseidon", "lr_time": 1}}, "has no argument 'lr_time'"),
        ({"name": "adamw", "lr": 1e-3, "groups": {"time_lr": 1.0}}, "optimizer.groups.name must be given"),
        ({"name": "adamw", "groups": {"name": "poseidon"}}, "optimizer.lr must be given"),
    ],
)
def test_what_does_not_fit_is_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(small_fno(), **arguments)


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ValueError, match=r"not installed; pip install \"southwell\[optimizers\]\""):
        build_optimizer(small_fno(), "soap", lr=1e-3)


def test_groupings_can_be_registered(monkeypatch):
    monkeypatch.setitem(groupings._entries, "lifting", lambda module, lr, weight_decay, lifting_lr: [
        {"params": module.lifting.parameters(), "lr": lifting_lr},
        {"params": module.blocks.parameters(), "lr": lr},
    ])  # fmt: skip
    groups = {"name": "lifting", "lifting_lr": 0.5}
    assert [g["lr"] for g in build_optimizer(small_fno(), "sgd", lr=0.1, groups=groups).param_groups] == [0.5, 0.1]
    split = build_optimizer(small_fno(), "complex_adamw", lr=0.1, groups=groups).param_groups
    assert [(g["complex_pairs"], g["lr"]) for g in split] == [(False, 0.5), (True, 0.1), (False, 0.1)]


# ---------------------------------------------------------------------------------------------------- second order


def test_only_second_order_optimizers_get_a_graph_and_the_plain_attention():
    pytest.importorskip("pytorch_optimizer")
    module = SmallTransformer()
    x = torch.randn(2, 1, 16, 16)
    for name, expected in (("adamw", False), ("adahessian", True)):
        optimizer = build_optimizer(module, name, lr=1e-2)
        assert is_second_order(optimizer) is expected
        with attention_for(optimizer):
            loss = module(x).square().mean()
        optimizer.zero_grad()
        backward(loss, optimizer)
        assert module.qkv.weight.grad.requires_grad is expected
        optimizer.step()
    # Without it, the fused kernel stops the second derivative; if torch learns it, attention_for may go.
    loss = module(x).square().mean()
    backward(loss, optimizer)
    with pytest.raises(RuntimeError, match="not implemented"):
        optimizer.step()


def test_adahessian_divides_by_the_hessians_diagonal():
    pytest.importorskip("pytorch_optimizer")
    # L = sum_i c_i w_i^2 / 2: the Hessian is diag(c), and Hutchinson's estimate of a diagonal matrix is exact.
    curvature = torch.tensor([1.0, 10.0, 100.0])
    module = nn.Linear(3, 1, bias=False)
    start = torch.tensor([[1.0, -2.0, 3.0]])
    module.weight.data.copy_(start)
    optimizer = build_optimizer(module, "adahessian", lr=1.0, betas=[0.0, 0.0], eps=0.0)
    for part in (0.25, 0.75):  # accumulated
        backward(part * (curvature * module.weight.square()).sum() / 2, optimizer)
    torch.testing.assert_close(module.weight.grad, curvature * start)
    optimizer.step()
    # Newton's method: w - H^{-1} g = 0 in one step.
    torch.testing.assert_close(module.weight.detach(), torch.zeros(1, 3), rtol=0.0, atol=1e-6)


class Shifted(nn.Module):
    """The gradient of `shift` is that of the last layer's output: one tensor, which their graph needs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
        self.shift = nn.Parameter(torch.zeros(5, 4))

    def forward(self, x):
        return torch.tanh(self.layers(x) + self.shift)


def test_clipping_a_gradient_with_a_graph_leaves_the_hessian_whole():
    pytest.importorskip("pytorch_optimizer")
    module = Shifted()
    optimizer = build_optimizer(module, "adahessian", lr=1e-3)
    backward(100 * module(torch.randn(5, 3)).square().mean(), optimizer)
    nn.utils.clip_grad_norm_(module.parameters(), 1e-2)
    optimizer.step()  # raises if the clipping in place has changed what the graph needs
    assert all(torch.isfinite(p).all() for p in module.parameters())
