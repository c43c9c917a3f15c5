"""Who computes the shards: this process, a pool of processes on this machine, or Dask (`datagen.dask_executor`).

Every executor runs one BLAS, OpenMP and numba thread a worker, so that the bytes of a shard do not depend on which one
made it, and yields results as they come. On a cluster each job can also take its share of the shards itself, with
``shard.index`` and ``shard.count``.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, resource_tracker
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from solvers.registry import Registry

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
Execute = Callable[..., Iterator[Any]]  # of function, tasks and workers

executors: Registry[Execute] = Registry("executor")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@executors.register("serial")
def serial(function: Callable[[Task], Outcome], tasks: Sequence[Task], workers: int) -> Iterator[Outcome]:
    """One task after the other, in this process.

    Parameters
    ----------
    function : callable
        Of one task.
    tasks : sequence
    workers : int
        Of no effect.
    """
    with threadpool_limits(limits=1):
        for task in tasks:
            yield function(task)


def _start_worker(parent: int) -> None:
    """End with the parent: a killed parent must not leave workers behind that nobody can see."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    threadpool_limits(limits=1)


@executors.register("processes")
def processes(function: Callable[[Task], Outcome], tasks: Sequence[Task], workers: int) -> Iterator[Outcome]:
    """A pool of worker processes; if this generator is closed early, the workers are ended at once.

    Parameters
    ----------
    function : callable
        Of one task; it and the tasks must pickle.
    tasks : sequence
    workers : int
        Processes, each with one thread.

    Raises
    ------
    RuntimeError
        If a worker dies (killed for memory, say).
    """
    if not tasks:
        return
    # Fresh interpreters, started with one thread a library: a fork would inherit thread pools, and their locks.
    with environment(dict.fromkeys(THREAD_VARIABLES, "1")), interrupts_held():
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
        )
        # No list of them here: each would hold what its task returned until the last one has ended.
        finishing = as_completed([pool.submit(function, task) for task in tasks])
    finished = False
    try:
        for future in finishing:
            yield future.result()
        finished = True
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process died (out of memory?); repeat the command to go on, with fewer executor.workers"
        ) from error
    finally:
        if not finished:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def chosen_executor(name: str, workers: int, address: str | None = None) -> Execute:
    """An executor by its name, its arguments looked at before anything is begun.

    Parameters
    ----------
    name : str
        Registered: "serial", "processes" or "dask".
    workers : int
        At least 1.
    address : str, optional
        Of a running scheduler, for dask alone.

    Raises
    ------
    ValueError
        If there is none of this name, or an argument does not fit.
    """
    from datagen.dask_executor import require_dask

    execute = executors[name]
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"executor.workers must be a whole number of at least 1, got {workers!r}")
    if name == "dask":
        require_dask()
        return partial(execute, address=address)
    if address is not None:
        raise ValueError(f"executor.address is for executor=dask, got {address!r} with executor={name}")
    return execute


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Threads and processes that begin within never see Ctrl-C, which a terminal sends to all: this thread ends them.

    What they would say of it are tracebacks. One that comes meanwhile is delivered at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # whose start would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started within.

    Parameters
    ----------
    values : dict of str to str
    """
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
