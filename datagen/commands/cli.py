"""What every command shares: Hydra with helpful errors, clean ends, and a check that `configs` is ours."""

import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import configs

# Exit codes: 0 done; 1 the work failed or found faults; 2 bad input, nothing was computed; 130, 143 interrupted.
FAILED, REFUSED = 1, 2

# What bad input, the machine or the arithmetic raise; anything else is a fault of ours and keeps its traceback.
EXPECTED = (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError)


def fail(sentence: str, code: int) -> NoReturn:
    """End with a sentence on standard error."""
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def said(error: Exception) -> str:
    """What an error says, without the number that OSError puts before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}"
    if isinstance(error, (ZeroDivisionError, OverflowError)):
        return f"the numbers given lead beyond what can be computed: {error}"
    return str(error)


def check_configs() -> None:
    """Refuse to run with another `configs` package than Southwell's."""
    if getattr(configs, "OWNER", None) != "southwell":
        place = getattr(configs, "__file__", None) or next(iter(getattr(configs, "__path__", ["?"])))
        fail(
            f"the Python package `configs` found first is {place}, not Southwell's. A folder or another distribution "
            "of that name shadows it: run from another folder, or `pip uninstall configs` and reinstall southwell.",
            REFUSED,
        )


def handle_termination() -> None:
    """Let SIGTERM end the process as Ctrl-C does: by an exception, so that what is held is released."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminate)


def run(
    command: Callable[[dict[str, Any]], None], config_name: str, job_folders: bool = False, folder: str = "configs"
) -> None:
    """Run a command under Hydra: compose ``<folder>/<config_name>.yaml`` and call it with plain Python values.

    Misspelt keys and group options end with the near names; bad input (ValueError) with its sentence and code 2; a
    failure of the machine or of the arithmetic (OSError, RuntimeError, MemoryError, ArithmeticError) with code 1. Set
    HYDRA_FULL_ERROR=1 for the traceback.

    In a sweep (``-m``) a job that fails is named and the others go on; with `job_folders` each has a folder of its own
    within `out` (`datagen.commands.sweeps`).
    """
    check_configs()
    handle_termination()
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from datagen.commands.sweeps import hydras_folder, in_own_folder, swept_keys

    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    raised: list[BaseException] = []
    here = os.getpid()
    failed: list[BaseException] = []  # jobs of a sweep
    swept = swept_keys(sys.argv[1:])
    if job_folders:
        sys.argv = [*sys.argv, *hydras_folder(sys.argv[1:], swept)]

    def plain(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
        values = OmegaConf.to_container(config, resolve=resolve)
        assert isinstance(values, dict)
        return with_names_as_text({str(key): value for key, value in values.items()})

    @hydra.main(version_base="1.3", config_path=f"pkg://{folder}", config_name=config_name)
    def main(config: DictConfig) -> None:
        if raised:
            return  # an earlier job of this sweep was interrupted, or none can run
        running = False
        values: dict[str, Any] = {}
        try:
            missing = sorted(OmegaConf.missing_keys(config))
            if missing:
                raise ValueError(f"{', '.join(missing)} must be given: {' '.join(f'{key}=...' for key in missing)}")
            values = plain(config)
            if job_folders:
                values = in_own_folder(values, plain(config, resolve=False)["out"], swept)
            running = True
            command(values)
        except BaseException as error:
            if os.getpid() != here:
                raise  # a job of a parallel launcher: its process hands the error over
            if swept and running and isinstance(error, EXPECTED):
                print(f"error: {values.get('out') or 'a job'}: {said(error)}", file=sys.stderr)
                failed.append(error)
            else:
                raised.append(error)  # Hydra would print lines of its own around it

    # Hydra then raises what it would print and exit with, so that we can say it better.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        main()
        if raised or (failed and traceback_wanted):
            raise [*raised, *failed][0]
        if failed:
            code = REFUSED if all(isinstance(error, ValueError) for error in failed) else FAILED
            fail(f"{len(failed)} of the sweep's jobs failed, as said above; the others are done", code)
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        if traceback_wanted:
            raise
        foreign = isinstance(error, (HydraException, OmegaConfBaseException))
        sentence = _explain(error, config_name) if foreign else str(error)
        fail(sentence, REFUSED)
    except EXPECTED as error:
        if traceback_wanted:
            raise
        fail(said(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted; repeat the command to go on", 130)
    except SystemExit as error:
        if error.code == 128 + signal.SIGTERM:
            print("terminated; repeat the command to go on", file=sys.stderr)
        raise


_NAMES = ("out", "output", "input", "checkpoint", "path", "matrix", "rhs")  # of files and folders


def with_names_as_text(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which names of files are text, also where YAML reads a number: ``out=7``, ``out=nan``.

    Parameters
    ----------
    config : dict

    Examples
    --------
    >>> with_names_as_text({"out": float("nan"), "seed": 1, "dataset": {"path": 2026}})
    {'out': 'nan', 'seed': 1, 'dataset': {'path': '2026'}}
    """

    def text(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return with_names_as_text(value)
        return str(value) if key in _NAMES and isinstance(value, int | float) else value

    return {key: text(key, value) for key, value in config.items()}


def _explain(error: BaseException, config_name: str) -> str:
    """Hydra's message, with the near names of a misspelt key."""
    text = str(error).strip()
    cause = error.__cause__
    while cause is not None:
        if str(cause).strip() and str(cause).strip() not in text:
            text += f" ({str(cause).strip().splitlines()[0]})"
        cause = cause.__cause__
    key = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct|find a key matching '([^']+)'", text)
    if key is None:
        key = re.search(r"Could not override '(.+?)'", text)
    if key:
        name = next(group for group in key.groups() if group)
        known = sorted(_known_keys(config_name))
        tail = {k.rsplit(".", 1)[-1]: k for k in known}
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        near += [tail[n] for n in difflib.get_close_matches(name.rsplit(".", 1)[-1], tail, n=2, cutoff=0.7)]
        near = list(dict.fromkeys(near))
        hint = f" Did you mean {' or '.join(near)}?" if near else " See --cfg job for all keys."
        return f"unknown key {name!r}.{hint}"
    return re.sub(r"\n(?:\s*\n)+", "\n", text)


def _known_keys(config_name: str) -> Iterator[str]:
    """Dotted names of all keys of the composed configuration, as far as the command line's groups allow."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def walk(value: Any, prefix: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield prefix + name
                yield from walk(inner, f"{prefix}{name}.")

    GlobalHydra.instance().clear()
    with initialize_config_module("configs", version_base="1.3"):
        groups = [word for word in sys.argv[1:] if re.fullmatch(r"[a-z_]+=[a-z0-9_]+", word)]
        for overrides in (groups, []):
            try:
                composed = compose(config_name, overrides=overrides)
            except (HydraException, OmegaConfBaseException):
                continue  # a group on the command line does not compose; the plain configuration does
            yield from walk(OmegaConf.to_container(composed, resolve=False), "")
            return
