"""Pictures of a solution: its mean, and how sure it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.gp.problems import tensor_points
from operators.gp.solution import Solution
from operators.plots import new_figure

Array = NDArray[np.floating]

FINEST = {1: 4000, 2: 400}
"""Points an axis in a picture."""


def picture(solution: Solution) -> Any:
    """Mean and standard deviation: over the axis, or on the plane, of three axes the middle one of the last.

    Parameters
    ----------
    solution : Solution

    Returns
    -------
    matplotlib.figure.Figure
    """
    box = solution.problem.domain
    shown = min(len(box), 2)
    axes = [np.linspace(low, high, FINEST[shown]) for low, high in box[:shown]]
    axes += [np.array([(low + high) / 2]) for low, high in box[shown:]]
    mean = solution.on_grid(axes)
    coarse = [x[:: max(len(x) // 100, 1)] for x in axes]
    std = solution.std(tensor_points(coarse)).reshape([len(x) for x in coarse])
    found = solution.diagnostics
    figure = new_figure(9, 4)
    figure.suptitle(f"{type(solution.problem).__name__}: residual between the nodes {found.residual:.1e}")
    left, right = figure.subplots(1, 2)
    if shown == 1:
        left.plot(axes[0], mean, linewidth=0.8)
        right.semilogy(coarse[0], np.maximum(std, 1e-300))
        left.set(xlabel="x", title="mean of u")
        right.set(xlabel="x", title="standard deviation of u")
        right.grid(True, alpha=0.3)
        return figure
    extent = (*box[0], *box[1])
    for part, values, title in ((left, mean, "mean of u"), (right, std, "standard deviation of u")):
        plane = values.reshape(values.shape[:2]).T
        image = part.imshow(plane, origin="lower", extent=extent, aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=part)
        part.set(xlabel="x", ylabel="y", title=title)
    return figure
