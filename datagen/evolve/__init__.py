"""Time integrators: given an evolution equation and a state, the states at the times asked for."""

from datagen.evolve.etdrk import ETDRK4 as ETDRK4
from datagen.evolve.family import Conserved as Conserved
from datagen.evolve.family import EvolvingFamily as EvolvingFamily
from datagen.evolve.family import UnstableStep as UnstableStep
from datagen.evolve.fourier import Fourier as Fourier
