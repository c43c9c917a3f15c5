"""Given a dataset: train, evaluate and use a neural operator; and finish what it predicts by a solver.

    operators.load("runs/tfno/best.pt").predict(fields)
    from operators.hybrid import certify            # certify(model, family, sample, rtol)

The package itself imports nothing: torch takes seconds, and the commands' ``--help`` should not wait for it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operators.predict import load as load


def __getattr__(name: str) -> Any:
    if name == "load":
        from operators.predict import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
