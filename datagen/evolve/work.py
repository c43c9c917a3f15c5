"""What an evolution cost, in units that do not depend on the machine.

Whoever steps in time counts what he does; whoever wants to know listens. In between, signatures stay as they are:

>>> with counted() as work:
...     count(steps=1, evaluations=4)
...     count(steps=1, evaluations=4)
>>> work
Work(steps=2, evaluations=8, solves=0, iterations=0, products=0, values=0)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Work:
    """Steps in time, and evaluations; of implicit steps also the linear solves, and the iterations in them.

    An evaluation is one pass over the unknowns: of the right-hand side, or, in implicit steps, of the operator or the
    preconditioner. Where passes are not all over the same unknowns, `products` counts those with the matrix alone, and
    `values` the numbers that all passes went over.
    """

    steps: int = 0
    evaluations: int = 0
    solves: int = 0
    iterations: int = 0
    products: int = 0
    values: int = 0


_listening: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def counted() -> Iterator[Work]:
    """Listen to all that is counted within."""
    work = Work()
    token = _listening.set(work)
    try:
        yield work
    finally:
        _listening.reset(token)


def count(
    steps: int = 0, evaluations: int = 0, solves: int = 0, iterations: int = 0, products: int = 0, values: int = 0
) -> None:
    """Add to the work of whoever listens, if anyone does."""
    work = _listening.get()
    if work is not None:
        work.steps += steps
        work.evaluations += evaluations
        work.solves += solves
        work.iterations += iterations
        work.products += products
        work.values += values
