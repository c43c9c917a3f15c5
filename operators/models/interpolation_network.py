r"""A small network that looks at a stencil and says how to interpolate there; one for all levels, grids and matrices.

Black-box multigrid takes its interpolation from the equation of each fine point alone. That is right where the
coefficient jumps, and far off where A couples obliquely or where the strong direction turns: then plain averages of
the coarse points are better, and what is best lies between. For each fine point that lies between coarse ones, with
its couplings :math:`a_o = -A_o / A_0`, the network gives a share g (and between four coarse points a twist
:math:`\delta`), by which the black-box weights w of the sum s become

.. math:: w_c + g \left(\frac{s}{m} - w_c\right) \pm \delta T s, \qquad
          T = a_{1,1} + a_{-1,-1} - a_{1,-1} - a_{-1,1},

with m coarse points around. Their sum stays s: constants are interpolated exactly where they were before. Whatever
the weights, interpolation keeps coarse points as they are and is thus of full rank: :math:`P^T A P` is positive
definite wherever A is, and so is the cycle.

Of each coarse operator a further share f is taken off that is not in the equation but in its discretisation: the
twist :math:`(u_{00} - u_{10} - u_{01} + u_{11})^2` of each square of four points, of which Galerkin products of
oblique operators hold more on each level (I. Yavneh and R. Wienands, Collocation coarse approximation in multigrid,
SIAM J. Sci. Comput. 31 (2009) 3643, mend the same). It is f times the negative coupling along a diagonal, if there is
one, and never more than half of what the sides of the square couple.

Features look the same from all sides: reflecting or transposing A reflects or transposes P.
"""

import torch
from torch import Tensor, nn

from operators.models.learned_kernels import DIAGONAL, FEATURES, SHARE, SLOPE, TINY, TWIST
from operators.models.multigrid_torch import CENTRE, OFFSETS, Colour, Stencil, hierarchy, shifted, summed


def perceptron(outputs: int, hidden: int) -> nn.Sequential:
    """One hidden layer; zero to begin with."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(FEATURES, hidden), nn.LeakyReLU(SLOPE), last).double()


class InterpolationNetwork(nn.Module):
    """The three perceptrons: for points between two coarse ones, between four, and for squares of coarse points.

    Untrained, it changes nothing: the hierarchy is that of black-box multigrid.

    Parameters
    ----------
    hidden : int
        Hidden units of each.
    """

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.sides, self.middles, self.squares = perceptron(1, hidden), perceptron(2, hidden), perceptron(1, hidden)

    def weights(self, operator: dict[Colour, Stencil], colour: Colour, weights: Stencil) -> Stencil:
        """Weights of the fine points of one colour, by the coarse point seen from them: black-box ones in, ours out."""
        stencil = operator[colour]
        d = stencil[CENTRE]
        safe = torch.where(d == 0, torch.ones_like(d), d)
        a = {o: -stencil[o] / safe if o in stencil else torch.zeros_like(d) for o in OFFSETS}
        parents = [
            shifted(operator[CENTRE][CENTRE], ((colour[0] + corner[0]) // 2, (colour[1] + corner[1]) // 2))
            for corner in weights
        ]
        mean = summed(parents) / len(parents)
        corners = a[1, 1].abs() + a[-1, -1].abs() + a[1, -1].abs() + a[-1, 1].abs()
        twist = a[1, 1] + a[-1, -1] - a[1, -1] - a[-1, 1]
        beside = mean / (mean + safe)
        everywhere = torch.stack([w != 0 for w in weights.values()]).all(dim=0)
        total = summed(weights.values())
        if len(weights) == 2:
            axis = 0 if colour[0] else 1
            ahead, behind = (summed(a[o] for o in OFFSETS if o[axis] == side) for side in (1, -1))
            across = a[0, 1] + a[0, -1] if axis == 0 else a[1, 0] + a[-1, 0]
            uneven = (ahead - behind).abs() / (ahead.abs() + behind.abs() + TINY)
            features = [ahead + behind, across, corners, twist.abs(), uneven, beside]
            (g,) = self.sides(torch.stack(features, dim=-1)).unbind(-1)
            bend = torch.zeros_like(g)
        else:
            x, y = a[1, 0] + a[-1, 0], a[0, 1] + a[0, -1]
            opposite = [o for o in OFFSETS if o > CENTRE]
            uneven = summed((a[o] - a[-o[0], -o[1]]).abs() for o in opposite)
            features = [x + y, (x - y).abs(), corners, twist.abs(), uneven, beside]
            g, bend = self.middles(torch.stack(features, dim=-1)).unbind(-1)
            bend = torch.where(everywhere, bend.clamp(-TWIST, TWIST) * twist, 0.0)
        g = torch.where(everywhere, g.clamp(*SHARE), 0.0)
        return {
            corner: w + (g * (total / len(weights) - w) + (bend if corner[0] * corner[1] > 0 else -bend) * total)
            for corner, w in weights.items()
        }

    def operator(self, coarse: Stencil) -> Stencil:
        """The coarse operator without a share of its twist."""
        x0, y0 = -coarse[1, 0], -coarse[0, 1]
        x1, y1 = shifted(x0, (0, 1)), shifted(y0, (1, 0))
        up, down = -coarse[1, 1], -shifted(coarse[1, -1], (0, 1))
        negative = torch.relu(-torch.minimum(up, down))
        room = 0.5 * torch.minimum(torch.minimum(x0, x1), torch.minimum(y0, y1)).clamp_min(0.0)
        total = x0.abs() + x1.abs() + y0.abs() + y1.abs() + up.abs() + down.abs() + TINY
        x, y = x0 + x1, y0 + y1
        uneven = (x0 - x1).abs() + (y0 - y1).abs()
        features = [x + y, (x - y).abs(), torch.maximum(up, down), negative, uneven, room]
        (f,) = self.squares(torch.stack(features, dim=-1) / total[..., None]).unbind(-1)
        g = f.clamp(*DIAGONAL) * torch.minimum(negative, room)
        behind, left = shifted(g, (-1, 0)), shifted(g, (0, -1))
        changed = {
            CENTRE: coarse[CENTRE] - (g + behind + left + shifted(g, (-1, -1))),
            (1, 0): coarse[1, 0] + g + left,
            (0, 1): coarse[0, 1] + g + behind,
            (1, 1): coarse[1, 1] - g,
            (1, -1): coarse[1, -1] - left,
        }
        for o in [o for o in changed if o != CENTRE]:
            back = (-o[0], -o[1])
            changed[back] = shifted(changed[o], back)
        return changed


class LearnedCycle(nn.Module):
    """One V-cycle with the network's interpolation as a model for ``task=linear_system task.stencil=true``.

    Parameters
    ----------
    in_channels : int
        The residual, and the 5 or 9 coefficients of the matrix by rising offset.
    out_channels : int
        One: the direction.
    hidden : int
        See `InterpolationNetwork`.

    Raises
    ------
    ValueError
        If the channels are others.
    """

    def __init__(self, in_channels: int, out_channels: int = 1, hidden: int = 8) -> None:
        super().__init__()
        if in_channels not in (6, 10) or out_channels != 1:
            raise ValueError(
                "model learned_multigrid maps a residual and the 5 or 9 coefficients of a two-dimensional stencil to "
                f"one direction, got {in_channels} and {out_channels} channels; set task=linear_system "
                "task.stencil=true"
            )
        self.offsets = [offset for offset in OFFSETS if in_channels == 10 or 0 in offset]
        self.network = InterpolationNetwork(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, in_channels, n, m) -> (batch, 1, n, m)``: linear in the first channel."""
        wide = x.double()  # coarse operators are sums of what nearly cancels
        zero = torch.zeros_like(wide[:, 0])
        given = {offset: wide[:, 1 + number] for number, offset in enumerate(self.offsets)}
        stencils = torch.stack([given.get(offset, zero) for offset in OFFSETS], dim=1)
        levels = hierarchy(stencils, self.network.weights, self.network.operator)
        return levels.apply(wide[:, 0])[:, None].to(x.dtype)
