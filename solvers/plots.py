"""Pictures of what solvers did. Matplotlib is imported when a picture is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from solvers.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def convergence(results: Sequence[Result] | Result, labels: Sequence[str] | None = None) -> "Figure":
    """Residual norm relative to the initial one, over iterations, one line for each right-hand side.

    Parameters
    ----------
    results : Result or sequence of Result
    labels : sequence of str, optional
        One for each Result; default its method.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot: save it with ``figure.savefig(...)``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If there is nothing to draw, or the labels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import cg, gallery
    >>> figure = convergence([cg(gallery.poisson((20,)), np.ones(20))])
    >>> figure.axes[0].get_yscale()
    'log'
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    results = [results] if isinstance(results, Result) else list(results)
    if not results:
        raise ValueError("results: expected at least one Result, got none")
    names = [result.method for result in results] if labels is None else list(labels)
    if len(names) != len(results):
        raise ValueError(f"labels: expected {len(results)}, one for each result, got {len(names)}")
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for position, (result, name) in enumerate(zip(results, names, strict=True)):
        mark = "" if result.converged else f" ({result.status.name})"
        for column, norms in enumerate(np.atleast_2d(result.history.T)):
            known = norms[np.isfinite(norms)]
            if known.size:
                scale = known[0] or 1.0
                axes.semilogy(
                    known / scale,
                    color=f"C{position}",
                    marker="." if known.size < 40 else None,
                    label=f"{name}{mark}" if column == 0 else None,
                )
    axes.set_xlabel("iteration")
    axes.set_ylabel(r"$\|r_k\| \, / \, \|r_0\|$")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    return figure
