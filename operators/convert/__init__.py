"""Published weights to ours: neuraloperator's Fourier neural operators, and latent spectral models.

A state dict says the shapes of a model, so `from_neuraloperator` and `from_lsm` build the model it belongs to. What the
numbers do not say (an activation, a padding) is read from neuraloperator's ``_metadata`` where the state dict has it,
or given by the caller. Every key must find its place: those that do not are named.
"""

from operators.convert.lsm import from_lsm
from operators.convert.neuraloperator import from_neuraloperator
from operators.convert.to_checkpoint import convert
from operators.convert.weights_file import read_weights

__all__ = ["convert", "from_lsm", "from_neuraloperator", "read_weights"]
