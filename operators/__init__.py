"""Given a dataset: train, evaluate and use a neural operator; and finish what it predicts by a solver.

    operators.load("runs/tfno/best.pt").predict(fields)
    from operators.hybrid import certify            # certify(model, family, sample, rtol)
    from operators.models.poseidon import load_poseidon    # load_poseidon("camlab-ethz/Poseidon-T")

The package imports nothing by itself: torch takes seconds, and the commands' ``--help`` should not wait for it. What is
asked for as ``operators.load`` or ``operators.load_poseidon`` is imported then.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operators.models.poseidon import load_poseidon as load_poseidon
    from operators.predict import load as load

_WHERE = {"load": "operators.predict", "load_poseidon": "operators.models.poseidon"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
