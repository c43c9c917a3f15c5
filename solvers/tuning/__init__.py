"""Parameters of solvers, learned from what solves cost.

A policy suggests a parameter for the next system of a stream, and is told what the solve cost:

>>> import numpy as np
>>> from solvers import gallery, sor
>>> from solvers.tuning import ChebyshevContextual
>>> A = gallery.poisson((10, 10)).tocsr()
>>> policy = ChebyshevContextual(np.linspace(1.0, 1.95, 20), (0.0, 0.5), seed=1)
>>> for context in np.linspace(0.0, 0.5, 5):
...     omega = policy.suggest(context)
...     result = sor(A + context * np.eye(100), np.ones(100), omega=omega)
...     policy.update(result.iterations)
"""

from solvers.tuning.binned_tsallis_inf import BinnedTsallisINF
from solvers.tuning.chebyshev_contextual import ChebyshevContextual
from solvers.tuning.fixed import FixedOmega, best_fixed, best_per_instance
from solvers.tuning.guard import Guard
from solvers.tuning.learned import LearnedOmega
from solvers.tuning.protocol import Policy
from solvers.tuning.spectral import JacobiRadius, SpectralOmega, young_omega
from solvers.tuning.tsallis_inf import TsallisINF

__all__ = [
    "BinnedTsallisINF",
    "ChebyshevContextual",
    "FixedOmega",
    "Guard",
    "JacobiRadius",
    "LearnedOmega",
    "Policy",
    "SpectralOmega",
    "TsallisINF",
    "best_fixed",
    "best_per_instance",
    "young_omega",
]
