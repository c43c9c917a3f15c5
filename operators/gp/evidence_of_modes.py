"""The evidence of boundary data and projected equation, by a change of variables from the coefficients of u.

The data are a linear function of the coefficients c, as many as they are, ``data = J c``, so that

    log p(data) = log p(c) - log |det J|.

J is block triangular: values at the ends against the modes that lift them, then L against the free functions. The
determinant of a Kronecker sum is the product of sums of eigenvalues. Elsewhere ``J = M (M^-1 J)`` with a Kronecker sum
M near J, and the logarithm of the rest is exact for a few thousand unknowns and estimated by random probes beyond
(Hutchinson's estimator with Arnoldi's method for the logarithm; Ubaru, Chen and Saad 2017, SIAM J. Matrix Anal.).
"""

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from operators.gp.galerkin import Galerkin
from operators.gp.modes_posterior import ModesPosterior
from operators.gp.newton import Linearised
from operators.gp.solution import Evidence

Array = NDArray[np.floating]

EXACT = 5_000
"""Unknowns up to which a determinant is exact whatever the operator: 200 MB and some seconds."""

PROBES, STEPS = 12, 30


def log_evidence(posterior: ModesPosterior, system: Galerkin, operator: Linearised) -> Evidence:
    """Logarithm of the density of the data; of a nonlinear problem, of those that are linearised at the mean.

    Parameters
    ----------
    posterior : ModesPosterior
        Coefficients, prior and noise.
    system : Galerkin
        The projected problem.
    operator : Linearised
        L, or its linearisation.
    """
    lifts, free = 0.0, 1
    for axis, part in enumerate(system.axes):
        # Each lifted coefficient stands for all modes of later axes, and the free ones of earlier axes.
        later = math.prod(m.count for m in system.modes[axis + 1 :])
        lifts += part.log_determinant * free * later
        free *= part.free.shape[1]
    value = posterior.log_density() - lifts - operator.near.log_determinant()
    if operator.exact:
        return Evidence(value)
    if system.unknowns() <= EXACT:
        return Evidence(value - _dense_log_determinant(operator, system.shape))
    rest, error = _estimated_log_determinant(operator, system.shape)
    return Evidence(value - rest, f"Hutchinson's estimator, {PROBES} probes of {STEPS} Arnoldi steps", error)


def _preconditioned(operator: Linearised, vector: Array, shape: tuple[int, ...]) -> Array:
    return operator.near.solve(operator.apply(vector.reshape(shape))).ravel()


def _dense_log_determinant(operator: Linearised, shape: tuple[int, ...]) -> float:
    """Of ``M^-1 J``, column by column."""
    size = math.prod(shape)
    columns = np.empty((size, size))
    unit = np.zeros(size)
    for k in range(size):
        unit[k] = 1.0
        columns[k] = _preconditioned(operator, unit, shape)
        unit[k] = 0.0
    return float(np.linalg.slogdet(columns)[1])


def _estimated_log_determinant(operator: Linearised, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard error of ``z^T log(M^-1 J) z`` over random signs z."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    found = []
    for _ in range(PROBES):
        z = rng.choice([-1.0, 1.0], size)
        basis: list[Array] = [z / math.sqrt(size)]
        hessenberg = np.zeros((STEPS + 1, STEPS))
        steps = STEPS
        for k in range(STEPS):
            w = _preconditioned(operator, basis[k], shape)
            for _ in range(2):  # once is not enough to stay orthogonal
                for j, q in enumerate(basis):
                    overlap = float(q @ w)
                    hessenberg[j, k] += overlap
                    w = w - overlap * q
            length = float(np.linalg.norm(w))
            if length < 1e-13:
                steps = k + 1
                break
            hessenberg[k + 1, k] = length
            basis.append(w / length)
        found.append(size * float(scipy.linalg.logm(hessenberg[:steps, :steps])[0, 0].real))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(PROBES))
