"""Shards on a Dask cluster: one that runs somewhere, or one of processes on this machine that is started here.

A Dask address is trusted code: whoever reaches a scheduler may run anything on its workers, and its workers answer with
pickles. Use your own, on a network of your own, or over ``tls://``.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from datagen.executors import THREAD_VARIABLES, environment, executors, interrupts_held

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
_ANSWER_SECONDS = 20
_AHEAD = 1000  # tasks that the scheduler knows of: more than it has workers


def require_dask() -> None:
    """Refuse where Dask is not installed.

    Raises
    ------
    ValueError
    """
    if find_spec("distributed") is None:
        raise ValueError("executor=dask needs the package distributed: pip install 'southwell[dask]'")


def _on_one_thread(function: Callable[[Task], Outcome], task: Task) -> Outcome:
    """What a worker runs: bytes must not depend on how many threads its libraries found."""
    with threadpool_limits(limits=1):
        return function(task)


@executors.register("dask")
def dask(
    function: Callable[[Task], Outcome], tasks: Sequence[Task], workers: int, address: str | None = None
) -> Iterator[Outcome]:
    """Tasks on the workers of a scheduler; those of a worker that dies go to others.

    If this generator is closed early, what has not begun is cancelled, and a cluster that was started here is ended.

    Parameters
    ----------
    function, tasks
        Plain values, and a function that the workers can import.
    workers : int
        Processes of the local cluster; not used with an address.
    address : str, optional
        Of a scheduler, "tcp://host:8786"; without one a local cluster is started.

    Raises
    ------
    OSError
        If no scheduler answers.
    RuntimeError
        If one task after the other loses its worker.
    """
    require_dask()
    from distributed import Client, LocalCluster, as_completed
    from distributed.scheduler import KilledWorker

    if not tasks:
        return
    with ExitStack() as stack:
        # It tells of each connection; and a worker that dies is no news, since another one takes its tasks.
        logger = logging.getLogger("distributed")
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        if address is None:
            with environment(dict.fromkeys(THREAD_VARIABLES, "1")), interrupts_held():
                cluster = LocalCluster(
                    n_workers=min(workers, len(tasks)),
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",  # any free port, open to this machine alone
                    silence_logs=logging.CRITICAL,
                )
            stack.enter_context(cluster)
            place: Any = cluster
        else:
            place = address
        try:
            client = stack.enter_context(Client(place, timeout=_ANSWER_SECONDS))
        except (OSError, ValueError) as error:
            raise OSError(f"no Dask scheduler answers at executor.address={address} ({error})") from None
        waiting = iter(tasks)

        def submit(count: int) -> list[Any]:
            some = list(islice(waiting, count))
            return client.map(_on_one_thread, [function] * len(some), some, pure=False)

        futures = as_completed(submit(_AHEAD))
        stack.callback(lambda: client.cancel(list(futures.futures)))
        try:
            for future in futures:
                futures.update(submit(1))
                yield future.result()
                future.release()
        except KilledWorker as error:
            raise RuntimeError(
                "a shard lost one worker after the other (out of memory?); repeat the command to go on, with fewer "
                "workers a machine or a smaller shard.size"
            ) from error
        except ImportError as error:
            raise RuntimeError(
                f"a Dask worker cannot import what it needs ({error}); install the same Southwell there as here"
            ) from error
