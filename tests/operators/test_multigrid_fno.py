"""MG-TFNO: patches against plain slicing, exact inverses, and what is computed in groups against all at once."""

import itertools

import numpy as np
import pytest
import torch

from operators.layers.grid_transfer import prolong, restrict
from operators.layers.multigrid_patches import (
    coordinate_channels,
    make_patches,
    patch_coordinates,
    patch_widths,
    stitch_patches,
)
from operators.models import FNO, MultigridFNO

GRIDS = [(16,), (8, 16), (24, 16), (8, 8, 16)]
BOUNDARIES = ["periodic", "replicate", "zero"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_stitching_undoes_patching(grid, levels, fraction, boundary):
    x = torch.randn(2, 3, *grid)
    widths = patch_widths(grid, fraction)
    patches = make_patches(x, levels, widths, boundary)
    sizes = [n // 2**levels + 2 * w for n, w in zip(grid, widths, strict=True)]
    assert patches.shape == (2 * 2 ** (levels * len(grid)), 3 * (levels + 1), *sizes)
    torch.testing.assert_close(stitch_patches(patches[:, :3], levels, widths), x, rtol=0, atol=0)


@pytest.mark.parametrize("grid", [(16,), (8, 24), (8, 8, 8)])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("fraction", [0.0, 0.13])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_patches_are_slices_of_a_padded_field(grid, levels, fraction, boundary):
    mode = {"zero": "constant", "periodic": "wrap", "replicate": "edge"}[boundary]
    x = torch.randn(2, 2, *grid)
    widths, count, far = patch_widths(grid, fraction), 2**levels, 2 * max(grid)
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), *[(far, far)] * len(grid)], mode=mode)
    expected = []
    for sample in padded:
        for place in itertools.product(range(count), repeat=len(grid)):
            views = []
            for level in range(levels + 1):
                cut = [slice(None)]
                for i, n, w in zip(place, grid, widths, strict=True):
                    # Each view has as many points, with the patch's part of the coarse grid in its middle.
                    size = n // count
                    first = i * size - 2**level * (w + -(-(size - size / 2**level) // 2))
                    first = int(first) + far
                    cut.append(slice(first, first + 2**level * (size + 2 * w), 2**level))
                views.append(sample[tuple(cut)])
            expected.append(np.concatenate(views))
    np.testing.assert_array_equal(make_patches(x, levels, widths, boundary).numpy(), np.stack(expected))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_coarsest_view_shows_a_whole_periodic_axis(levels):
    x, step = torch.arange(32.0).reshape(1, 1, 32), 2**levels
    for patch in make_patches(x, levels, widths=[0], boundary="periodic"):
        seen = sorted(patch[levels].tolist())
        assert seen == [seen[0] + step * k for k in range(32 // step)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("boundary", ["periodic", "zero"])
def test_coordinates_are_those_of_the_whole_field_and_of_the_patch_and_go_on(grid, boundary):
    d, widths = len(grid), patch_widths(grid, 0.2)
    coordinates = patch_coordinates(grid, 2, widths, boundary, torch.zeros(1, dtype=torch.float64)).numpy()
    for place, patch in zip(itertools.product(range(4), repeat=d), coordinates, strict=True):
        points = [np.arange(-w, n // 4 + w) for n, w in zip(grid, widths, strict=True)]
        inside = np.meshgrid(*[j / (n // 4) for j, n in zip(points, grid, strict=True)], indexing="ij")
        shifted = [j + i * n // 4 for i, j, n in zip(place, points, grid, strict=True)]
        whole = np.stack(np.meshgrid(*[j / n for j, n in zip(shifted, grid, strict=True)], indexing="ij"))
        waves = [np.cos(2 * np.pi * whole), np.sin(2 * np.pi * whole)]
        expected = np.concatenate([*(waves if boundary == "periodic" else [whole]), np.stack(inside)])
        assert len(patch) == coordinate_channels(d, boundary)
        np.testing.assert_allclose(patch, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("grid", [(16,), (8, 16), (8, 6, 8)])
@pytest.mark.parametrize("patches_at_once", [1, 3, 1000])
@pytest.mark.parametrize("coarse_solution", [False, True])
def test_groups_of_patches_give_the_outputs_and_gradients_of_all(grid, patches_at_once, coarse_solution):
    torch.manual_seed(0)
    arguments = {"n_modes": [2] * len(grid), "in_channels": 2, "out_channels": 1, "hidden_channels": 4, "n_layers": 2,
                 "padding_fraction": 0.2, "boundary": "replicate", "rank": 0.5,
                 "coarse_solution": coarse_solution}  # fmt: skip
    together = MultigridFNO(**arguments).double()
    grouped = MultigridFNO(**arguments, patches_at_once=patches_at_once).double()
    grouped.load_state_dict(together.state_dict())
    results = []
    for model in (together, grouped):
        x = torch.randn(2, 2, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = model(x)
        (y**3).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in model.parameters())])
        with torch.no_grad():
            torch.testing.assert_close(model(x), y.detach(), rtol=1e-13, atol=1e-13)
    # The sums over patches in another order, in double precision.
    torch.testing.assert_close(results[0], results[1], rtol=1e-11, atol=1e-11)


def test_groups_of_patches_keep_little_for_the_gradient():
    x = torch.randn(2, 1, 64, 64)

    def kept(model):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(x)
        return sum(sizes.values())

    arguments = {"n_modes": (8, 8), "in_channels": 1, "out_channels": 1, "hidden_channels": 16}
    # A group of 2 of 32 patches, 22 x 22 instead of 64 x 64 points: what is kept before the gradient is taken is less
    # than a twentieth, and one group more while it is.
    assert kept(MultigridFNO(**arguments, levels=2, patches_at_once=2)) < kept(FNO(**arguments)) / 20


@pytest.mark.parametrize("grid", [(16,), (8, 24), (8, 8, 8)])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_what_the_coarse_grid_carries_comes_back_from_it(grid, boundary):
    # The longest waves where the field is periodic; else what is linear along each axis between coarse points.
    generator = torch.Generator().manual_seed(0)
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    fields = torch.ones(2, 3, *grid, dtype=torch.float64)
    for k, (n, axis) in enumerate(zip(grid, axes, strict=True)):
        if boundary == "periodic":
            along = torch.sin(2 * np.pi * axis / n + torch.rand(1, generator=generator)) * (n > 8) + 1.0
        else:
            nodes = np.append(np.random.default_rng(k).standard_normal(n // 4), 0.0)
            nodes[-1] = 0.0 if boundary == "zero" else nodes[-2]
            along = torch.from_numpy(np.interp(axis.numpy() / 4, np.arange(n // 4 + 1), nodes))
        fields = fields * along.reshape(-1, *[1] * (len(grid) - 1 - k))
    coarse = restrict(fields, 4, boundary)
    assert coarse.shape == (2, 3, *(n // 4 for n in grid))
    torch.testing.assert_close(prolong(coarse, grid, boundary), fields, rtol=1e-12, atol=1e-12)


def test_patches_correct_the_coarse_solution():
    torch.manual_seed(0)
    model = MultigridFNO((2, 2), 1, 1, 4, levels=2, n_layers=1, coarse_solution=True).double()
    x = torch.randn(2, 1, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.fno.parameters():
            parameter.zero_()
        coarse = prolong(model.coarse(restrict(x, 4, "periodic")), (16, 24), "periodic")
        assert coarse.abs().max() > 1e-3
        torch.testing.assert_close(model(x), coarse, rtol=0, atol=1e-14)


def test_commutes_with_translations_by_whole_patches():
    torch.manual_seed(0)
    model = MultigridFNO((4, 4), 1, 1, 6, levels=2, padding_fraction=0.1, positional_embedding=None).double()
    x = torch.randn(2, 1, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(x.roll((4, 16), (2, 3))), model(x).roll((4, 16), (2, 3)), rtol=1e-12, atol=1e-12
        )
        model.boundary = "zero"
        assert (model(x.roll(4, 2)) - model(x).roll(4, 2)).abs().max() > 1e-3


def test_a_patch_sees_all_of_a_periodic_field():
    """Through the coarse views only: the patches themselves and their margins end far before the other side."""
    torch.manual_seed(0)
    model = MultigridFNO((2, 2), 1, 1, 8, levels=2, padding_fraction=0.05)
    x = torch.zeros(1, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0, 0, 0, 0], x)
    assert (gradient[0, 0, ::4, ::4] != 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 0}, "levels must be at least 1"),
        ({"patches_at_once": 0}, "patches_at_once must be at least 1"),
        ({"padding_fraction": 8}, "padding_fraction must be between 0 and 1"),
        ({"boundary": "circular"}, "boundary must be"),
        ({"positional_embedding": "sine"}, "positional_embedding must be"),
        ({"norm": "batch_norm", "patches_at_once": 2}, "needs all patches together"),
        ({"rank": 2.0}, "rank must be a fraction"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultigridFNO((4, 4), 1, 1, 4, **arguments)


def test_input_that_does_not_fit_is_refused():
    model = MultigridFNO((4, 4), 2, 1, 4, levels=2)
    with pytest.raises(ValueError, match="a grid of 16 x 18 points cannot be cut into 4 patches"):
        model(torch.zeros(1, 2, 16, 18))
    with pytest.raises(ValueError, match="2 channels"):
        model(torch.zeros(1, 1, 16, 16))
