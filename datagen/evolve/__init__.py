"""Time integrators: given an evolution equation and a state, the states at the times asked for."""

from datagen.evolve.etdrk import ETDRK4 as ETDRK4
from datagen.evolve.fourier import Fourier as Fourier
