"""scOT: the authors' outputs, keys and counts, and what must hold beyond their code."""

import copy
import json
import math
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from operators.layers.conditional_norm import ConditionalLayerNorm
from operators.layers.patches import PatchMerging, PatchProjection, PatchRecovery
from operators.layers.resample import fourier_resample
from operators.layers.window_attention import WindowAttention
from operators.models import ScOT, models
from operators.optimizers import build_optimizer
from operators.trainer import train

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = Path(__file__).parents[2] / "configs" / "model"
RECIPE = runpy.run_path(str(GOLDEN / "make_scot_golden.py"))


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def configured(name: str, **changes) -> ScOT:
    """A model of configs/model, on the meta device: nothing is allocated."""
    arguments = yaml.safe_load((CONFIGS / "scot.yaml").read_text())
    arguments |= yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    arguments.pop("defaults", None)
    with torch.device("meta"):
        return models.build(arguments.pop("name"), **arguments, **changes)


def randomise(model: ScOT) -> ScOT:
    """Weights of the golden recipe: the initial ones leave almost nothing of input and time."""
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.from_numpy(value) for key, value in RECIPE["random_state"](shapes).items()})
    return model.eval()


def small(**changes) -> ScOT:
    return randomise(ScOT(**(RECIPE["SMALL"] | {"image_size": None} | changes)))


# The authors' code: counts, keys, outputs.


@pytest.mark.parametrize(
    ("name", "published", "without_embedding_and_recovery"),
    [
        ("scot_t", 20_774_444, 20_767_656),
        ("scot_s", 39_901_076, 39_894_288),
        ("scot_b", 157_729_988, 157_716_816),
        ("scot_l", 628_575_524, 628_549_584),
    ],
)
def test_parameter_counts_are_the_published_ones(name, published, without_embedding_and_recovery):
    model = configured(name, in_channels=4, out_channels=4)
    assert parameter_count(model) == published
    edges = parameter_count(model.embeddings) + parameter_count(model.patch_recovery)
    assert published - edges == without_embedding_and_recovery


def test_parts_of_poseidon_t_have_the_published_counts():
    model = configured("scot_t", in_channels=4, out_channels=4)
    parts = ["embeddings", "patch_recovery", "encoder", "decoder", "residual_blocks"]
    counts = [parameter_count(getattr(model, part)) for part in parts]
    assert counts == [3_312, 3_476, 9_953_076, 10_000_116, 814_464]


def test_the_state_dict_of_poseidon_t_is_the_authors():
    with np.load(GOLDEN / "scot_golden.npz") as golden:
        theirs = json.loads(str(golden["poseidon_t/shapes"]))
    ours = configured("scot_t", in_channels=4, out_channels=4).state_dict()
    assert {key: list(value.shape) for key, value in ours.items()} == theirs


@pytest.mark.parametrize("gradient", [False, True], ids=["fused attention", "plain attention"])
@pytest.mark.parametrize("case", RECIPE["CASES"])
def test_outputs_equal_the_authors_on_the_same_weights(case, gradient):
    changes, points, times, mask, thinning = RECIPE["CASES"][case]
    arguments = RECIPE["SMALL"] | changes
    model = randomise(ScOT(**arguments))
    given = RECIPE["random_input"](arguments, points, times, mask)
    given = {key: None if value is None else torch.from_numpy(value) for key, value in given.items()}
    if not model.use_conditioning:
        given["time"] = None
    with torch.set_grad_enabled(gradient):
        output = model(**given).detach().numpy()[..., ::thinning, ::thinning]
    with np.load(GOLDEN / "scot_golden.npz") as golden:
        expected = golden[f"{case}/output"]
    # Single precision through up to 32 blocks, whose order of sums differs; measured 1e-6.
    assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()


# Initial weights.


def test_initial_weights_follow_the_authors_rule():
    torch.manual_seed(0)
    model = ScOT(3, 3, embed_dim=48, depths=[1, 1], num_heads=[3, 6], skip_connections=[1, 0], window_size=8)
    attention = model.encoder.layers[1].blocks[0].attention["self"]
    norm = model.encoder.layers[1].blocks[0].layernorm_after
    # The standard deviation of 9216 normal numbers is known to 0.7 % (one sigma); of a time gain's 96 to 7 %.
    assert attention.query.weight.std().item() == pytest.approx(0.02, rel=0.04)
    assert norm.weight.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert torch.equal(attention.logit_scale, torch.full((6, 1, 1), 10.0).log())
    for zero in (
        attention.query.bias,
        norm.weight.bias,
        norm.bias.bias,
        model.embeddings.patch_embeddings.projection.bias,
    ):
        assert not zero.any()
    # A transposed convolution keeps torch's uniform numbers, of variance 1 / (3 * fan-in), fan-in = 3 * 4 * 4.
    assert model.patch_recovery.projection.weight.std().item() == pytest.approx((3 * 48) ** -0.5, rel=0.05)
    assert torch.equal(model.residual_blocks[0][0].weight, torch.full((48,), 1e-6))


# The lead time.


def test_the_lead_time_matters_and_is_one_by_default():
    model = small()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        one = model(x, torch.ones(2))
        assert torch.equal(model(x), one)
        assert (model(x, torch.tensor([1.0, 0.5])) - one)[0].abs().max() == 0.0
        assert (model(x, torch.tensor([1.0, 0.5])) - one)[1].abs().max() > 0.1


def test_one_sample_alone_equals_itself_in_a_batch():
    # A batch of one takes another way through the norms.
    model = small().double()
    x, time = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0.1, 0.6, 1.0])
    with torch.no_grad():
        together = model(x, time)
        for i in range(3):
            torch.testing.assert_close(model(x[i : i + 1], time[i : i + 1])[0], together[i], rtol=1e-11, atol=1e-11)


def test_norm_of_fields_far_from_zero_keeps_its_digits():
    # E[x^2] - E[x]^2, as in the authors' code, has no digit left here.
    norm = ConditionalLayerNorm(64)
    x = 3000.0 + torch.randn(2, 4, 4, 64, dtype=torch.float64)
    time = torch.tensor([[0.3], [0.9]])
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    gain, shift = (layer(time)[:, None, None] for layer in (norm.weight, norm.bias))
    # Storing x in single precision costs 3000 * 6e-8 = 2e-4 of a deviation.
    torch.testing.assert_close(norm(x.float(), time), gain * expected.float() + shift, rtol=0, atol=1e-3)


def test_without_conditioning_only_lead_time_one_is_taken():
    model = small(use_conditioning=False)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x, torch.ones(2)), model(x))
    with pytest.raises(ValueError, match="use_conditioning=false"):
        model(x, torch.tensor([1.0, 0.5]))


def test_lead_times_outside_the_trained_range_warn():
    model = small()
    model.lead_times = (0.0, 1.0)
    x = torch.randn(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x, torch.tensor([0.0, 1.0]))
        model.train()(x, torch.tensor([0.0, 1.5]))  # training on it is how the range grows
    with pytest.warns(UserWarning, match=r"lead times from 0 to 1.5 .* trained on 0 to 1"):
        model.eval()(x, torch.tensor([0.0, 1.5]))


# Grids.


def transposed(model: ScOT) -> ScOT:
    """The model that does on a transposed field what `model` does on the field."""
    state = {}
    for name, value in model.state_dict().items():
        if "projection.weight" in name or ("mixup.weight" in name and value.ndim == 4) or "dwconv.weight" in name:
            value = value.transpose(2, 3)
        elif "continuous_position_bias_mlp.0.weight" in name:
            value = value.flip(1)
        elif name.endswith("reduction.weight"):  # columns: (second axis, first axis) of the four, channels
            value = value.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)
        elif name.endswith("upsample.weight"):  # rows: (first axis, second axis) of the four, channels
            value = value.unflatten(0, (2, 2, -1)).transpose(0, 1).flatten(0, 2)
        state[name] = value
    other = small().to(next(iter(state.values())).dtype)
    other.load_state_dict(state)
    return other


@pytest.mark.parametrize("grid", [(16, 24), (18, 9), (7, 40), (32, 32), (8, 3)])
def test_axes_are_treated_alike_on_rectangles(grid):
    # Windows, shifts, masks, padding, merging and unmerging of one axis must be those of the other.
    model = small().double()
    other = transposed(model)
    x, time = torch.randn(2, 3, *grid, dtype=torch.float64), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        y, z = model(x, time), other(x.transpose(2, 3), time)
    assert y.shape == (2, 2, *grid)
    torch.testing.assert_close(z.transpose(2, 3), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("grid", [(25, 38), (1, 1), (2, 3), (5, 5), (17, 64), (33, 34)])
def test_sizes_that_nothing_divides(grid):
    model = small(depths=[2, 2, 1], num_heads=[2, 3, 4], skip_connections=[1, 0, 0])
    y = model(torch.randn(2, 3, *grid), torch.tensor([0.3, 0.8]))
    assert y.shape == (2, 2, *grid)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_what_is_padded_comes_last():
    # Where the authors' code gets through, its sizes divide: these are its rules for those that do not.
    torch.manual_seed(0)
    x, tokens, time = torch.randn(1, 3, 5, 6), torch.randn(1, 3, 5, 2), torch.ones(1, 1)
    projection, merging = PatchProjection(3, 4, (4, 4)), PatchMerging(2, ConditionalLayerNorm)
    torch.testing.assert_close(projection(x), projection(functional.pad(x, (0, 2, 0, 3))))
    torch.testing.assert_close(merging(tokens, time), merging(functional.pad(tokens, (0, 0, 0, 1, 0, 1)), time))
    recovery = PatchRecovery(4, 2, (4, 4))
    whole = recovery.projection(projection(x).permute(0, 3, 1, 2))
    torch.testing.assert_close(recovery(projection(x), (5, 6)), recovery.mixup(whole[:, :, :5, :6]))


def test_windows_of_one_token_are_finite():
    # Tokens 8, 4, 2, 1: transformers 4.29.2 divides the last stage's offset by zero.
    model = randomise(
        ScOT(1, 1, 32, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, skip_connections=[0] * 4, window_size=16)
    )
    assert torch.isfinite(model(torch.randn(1, 1, 32, 32))).all()


def test_a_small_input_leaves_no_trace():
    # In the authors' code a window that was cut down to a small grid stays small.
    model = small(window_size=8)
    large, little = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 6, 4)
    with torch.no_grad():
        before = model(large)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        model(little)
        assert torch.equal(model(large), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_other_grids_are_resampled_to_the_image_size():
    # Between its two resamplings the model sees the same field, whatever the grid of a band-limited input.
    model = small(image_size=(16, 24)).double()
    axes = [torch.arange(n, dtype=torch.float64) / n for n in (48, 48)]
    fine = torch.sin(2 * torch.pi * (3 * axes[0][:, None] + 2 * axes[1])) + torch.cos(2 * torch.pi * axes[0])[:, None]
    fine = fine * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)[:, None, None]
    with torch.no_grad():
        native = model(fine[None, :, ::3, ::2])
        finer = model(fine[None])
        mixed = model(fine[None, :, ::6])  # coarser on one axis, finer on the other
    torch.testing.assert_close(finer[..., ::3, ::2], native, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mixed.shape, torch.Size([1, 2, 8, 48]))
    assert torch.isfinite(mixed).all()


@pytest.mark.parametrize(
    ("grid", "window"), [((8, 8), (4, 4)), ((8, 12), (4, 6)), ((7, 10), (4, 4)), ((3, 9), (5, 3)), ((4, 1), (4, 4))]
)
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_is_the_formula_between_all_tokens(grid, window, shifted):
    # Written out for every pair of tokens of the padded grid, with no windows, rolls or tables.
    torch.manual_seed(0)
    channels, heads = 6, 2
    layer = WindowAttention(channels, heads, window).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        layer.logit_scale.fill_(6.0)  # beyond ln 100: logits of 100 must meet the mask of -200
    x = torch.randn(1, *grid, channels, dtype=torch.float64)
    window = [min(w, n) for w, n in zip(window, grid, strict=True)]
    padded = [n + -n % w for n, w in zip(grid, window, strict=True)]
    shift = [w // 2 if shifted and n > w else 0 for n, w in zip(grid, window, strict=True)]
    z = torch.zeros(*padded, channels, dtype=torch.float64)
    z[: grid[0], : grid[1]] = x[0]
    q, k, v = (linear(z).reshape(-1, heads, channels // heads) for linear in (layer.query, layer.key, layer.value))
    logits = 100 * torch.einsum(
        "ahc,bhc->abh", *(u / torch.linalg.vector_norm(u, dim=-1, keepdim=True).clamp_min(1e-300) for u in (q, k))
    )
    # Of every pair of tokens, for each axis: whether they share a window, whether one came around, their offset.
    offsets, together, apart = [], True, False
    for place, n, s, w in zip(torch.cartesian_prod(*map(torch.arange, padded)).T, padded, shift, window, strict=True):
        at = (place - s) % n
        together = together & (at[:, None] // w == at // w)
        apart = apart | ((place[:, None] < s) != (place < s))
        relative = 8.0 * (at[:, None] - at).double() / max(w - 1, 1)
        offsets.append(relative.sign() * torch.log1p(relative.abs()) / math.log(8))
    logits = logits + 16 / (1 + torch.exp(-layer.continuous_position_bias_mlp(torch.stack(offsets, -1))))
    logits = (logits - 200.0 * apart[..., None]).masked_fill(~together[..., None], -math.inf)
    expected = torch.einsum("abh,bhc->ahc", logits.softmax(1), v).reshape(*padded, channels)[: grid[0], : grid[1]]
    for gradient in (False, True):
        with torch.set_grad_enabled(gradient):
            torch.testing.assert_close(layer(x, shifted)[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("points", "grid"), [((5, 8), (9, 7)), ((7, 9), (12, 5)), ((6, 6), (6, 10)), ((12, 12), (5, 6)), ((4, 3), (3, 4))]
)
def test_resampling_is_exact_for_what_both_grids_represent(points, grid):
    highest = [(min(n, m) - 1) // 2 for n, m in zip(points, grid, strict=True)]
    generator = np.random.default_rng(0)
    waves = [(k, generator.normal(), generator.uniform(0, 6)) for k in np.ndindex(*(2 * h + 1 for h in highest))]

    def field(shape):
        axes = np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij")
        phase = [sum((k - h) * x for k, h, x in zip(wave, highest, axes, strict=True)) for wave, _, _ in waves]
        terms = [a * np.cos(2 * np.pi * p + shift) for p, (_, a, shift) in zip(phase, waves, strict=True)]
        return torch.from_numpy(sum(terms))

    torch.testing.assert_close(fourier_resample(field(points), grid), field(grid), rtol=1e-12, atol=1e-12)


# Training.


def test_recomputing_gives_the_same_gradients_and_keeps_less():
    x, time = torch.randn(2, 3, 32, 32), torch.tensor([0.3, 0.8])
    gradients, kept = [], []
    for checkpointing in (False, True):
        model = small(checkpointing=checkpointing, hidden_dropout_prob=0.1, drop_path_rate=0.3).train()
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = model(x, time).square().mean()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        kept.append(total)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.5 * kept[0]


def test_gradients_against_finite_differences():
    model = small(embed_dim=4, num_heads=[1, 2], depths=[2, 1], window_size=3, patch_size=2).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64, requires_grad=True)
    time = torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True)

    def function(x, time, vector):
        parts = vector.split([p.numel() for p in parameters])
        given = {name: part.view_as(p) for name, part, p in zip(names, parts, parameters, strict=True)}
        return torch.func.functional_call(model, given, (x, time))

    vector = torch.cat([p.detach().flatten() for p in parameters]).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, time, vector), fast_mode=True)


def test_a_kept_bias_is_forgotten_when_its_weights_change():
    # However they change: optimizers, `load_state_dict`, writes past autograd, another window, another type.
    model = small(image_size=None)
    x = torch.randn(1, 3, 32, 32)
    layer = model.encoder.layers[0].blocks[0].attention["self"].continuous_position_bias_mlp

    def fresh(x):
        return copy.deepcopy(model).requires_grad_()(x)  # with gradients nothing is kept

    for change in (
        lambda: layer[0].bias.data.add_(0.5),
        lambda: layer[2].weight.data.mul_(2.0),
        lambda: setattr(layer[0], "weight", nn.Parameter(layer[0].weight * 2.0)),
        lambda: model.load_state_dict(small(use_conditioning=True).state_dict()),
        lambda: model.double(),
        lambda: None,
    ):
        with torch.no_grad():
            before = model(x.to(model.patch_recovery.mixup.weight.dtype))
            change()
            x = x.to(model.patch_recovery.mixup.weight.dtype)
            after = model(x)
            little = model(x[..., :10, :6])
        torch.testing.assert_close(after, fresh(x).detach(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(little, fresh(x[..., :10, :6]).detach(), rtol=1e-4, atol=1e-4)
    assert (before - after).abs().max() == 0.0  # and kept where they do not


def test_evaluating_in_inference_mode_does_not_spoil_training():
    # Masks and offsets are cached; made in inference mode they could not be used by autograd afterwards.
    model = small(window_size=6)
    x = torch.randn(1, 3, 26, 26)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_drop_path_grows_linearly_and_keeps_the_mean():
    from operators.models.scot import drop_path

    model = small(drop_path_rate=0.3)
    order = [*model.encoder, *model.decoder]
    rates = [block.drop_path for stage in order for block in stage.blocks]
    assert rates == pytest.approx(np.linspace(0, 0.3, 10))
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(4000, 2, 2, 1), 0.3)
    assert set(dropped.flatten(1).std(1).tolist()) == {0.0}  # whole samples
    # The mean of 4000 numbers of standard deviation sqrt(0.3 / 0.7): four of its own are 0.04.
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)


def test_poseidons_parameter_groups():
    model = configured("scot_t", in_channels=4, out_channels=4)
    optimizer = build_optimizer(
        model,
        "adamw",
        lr=5e-5,
        weight_decay=1e-6,
        groups={"name": "poseidon", "embedding_recovery_lr": 5e-4, "time_lr": 3e-4},
    )
    counts = {}
    for group in optimizer.param_groups:
        key = (group["lr"], group["weight_decay"])
        counts[key] = counts.get(key, 0) + sum(p.numel() for p in group["params"])
    norms = sum(
        parameter_count(module)
        for name, module in model.named_modules()
        if isinstance(module, ConditionalLayerNorm) and "embeddings" not in name
    )
    # Decayed: weights of linear layers and convolutions, logit and layer scales; the bias's perceptron is not.
    decayed = sum(
        p.numel()
        for name, p in model.named_parameters()
        if "bias" not in name and "norm" not in name and "embeddings" not in name and "patch_recovery" not in name
    )
    assert counts == {
        (5e-4, 1e-6): 3_312 + 3_476,
        (3e-4, 0.0): norms,
        (5e-5, 1e-6): decayed,
        (5e-5, 0.0): 20_774_444 - 3_312 - 3_476 - norms - decayed,
    }


def test_trains_on_a_steady_problem(make_store, make_config):
    model = {
        "name": "scot",
        "embed_dim": 12,
        "depths": [1, 1],
        "num_heads": [2, 4],
        "skip_connections": [1, 0],
        "patch_size": 2,
        "window_size": 4,
    }
    config = make_config(model=model, optimizer={"lr": 1e-2}, trainer={"epochs": 8, "batch_size": 3})
    history = train(config, make_store()).history
    # Predicting the mean costs the fields' deviation over their size.
    solution = make_store().arrays["validation"]["solution"]
    naive = np.mean([np.linalg.norm(u - solution.mean()) / np.linalg.norm(u) for u in solution])
    assert history[-1]["validation_relative_l2"] < 0.5 * naive


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": [2]}, "num_heads must list a number of at least 1 for each stage"),
        ({"depths": [2, 0]}, "depths must list"),
        ({"skip_connections": [1, -1]}, "skip_connections must list"),
        ({"num_heads": [5, 3]}, "num_heads must divide"),
        ({"residual_model": "unet"}, "residual_model must be 'convnext' or 'resnet'"),
        ({"patch_size": 0}, "patch_size must be a positive number"),
        ({"window_size": [4, 4, 4]}, "window_size must be a positive number, or one for each of the two axes"),
        ({"learn_residual": True, "in_channels": 1}, "learn_residual adds the input"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be a probability"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings needs an image_size"),
        ({"embed_dim": 0}, "embed_dim must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_input_that_does_not_fit_is_refused():
    model = small()
    x = torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match="3 channels"):
        model(torch.zeros(2, 4, 16, 16))
    with pytest.raises(ValueError, match="3 channels"):
        model(torch.zeros(2, 3, 16))
    with pytest.raises(ValueError, match="one lead time for each of 2 samples"):
        model(x, torch.ones(3))
    with pytest.raises(ValueError, match="pixel_mask says where"):
        model(x, pixel_mask=torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="pixel_mask says where"):
        model(x, pixel_mask=torch.ones(2, 3, dtype=torch.bool), labels=torch.zeros(2, 2, 16, 16))


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu():
    model = small(window_size=5)
    x, time = torch.randn(2, 3, 32, 26), torch.tensor([0.3, 0.8])
    expected = model(x, time)
    expected.square().mean().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    output = model.cuda()(x.cuda(), time.cuda())
    output.square().mean().backward()
    torch.testing.assert_close(output.cpu(), expected, rtol=1e-3, atol=1e-3)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        assert (p.grad.cpu() - gradient).norm() <= 1e-2 * gradient.norm() + 1e-6
