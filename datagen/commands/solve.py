"""``southwell-solve``: solve one linear system from files.

southwell-solve matrix=A.mtx rhs=b.npy out=x.npy
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse
from numpy.typing import NDArray

from datagen.commands.cli import FAILED, run
from datagen.files import write_atomically
from solvers import solve


def read_matrix(path: Path) -> Any:
    """A matrix from Matrix Market, scipy's sparse ``.npz`` or a dense ``.npy``."""
    if not path.exists():
        raise ValueError(f"matrix={path}: there is no such file")
    try:
        if path.suffix in (".mtx", ".mm", ".gz"):
            matrix = scipy.io.mmread(path, spmatrix=False)
            return scipy.sparse.csr_array(matrix) if scipy.sparse.issparse(matrix) else matrix
        if path.suffix == ".npz":
            return scipy.sparse.csr_array(scipy.sparse.load_npz(path))
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(f"matrix={path} could not be read: {error}") from None
    raise ValueError(f"matrix={path} must end in .mtx, .mtx.gz, .npz or .npy")


def read_vector(path: Path, name: str) -> NDArray[Any]:
    """A vector, or several as columns, from ``.npy``, ``.npz`` with one array, Matrix Market or text."""
    if not path.exists():
        raise ValueError(f"{name}={path}: there is no such file")
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                if len(archive.files) != 1:
                    raise ValueError(f"it must hold one array, and holds {archive.files}")
                values = archive[archive.files[0]]
        elif path.suffix in (".mtx", ".mm", ".gz"):
            matrix = scipy.io.mmread(path, spmatrix=False)
            values = matrix.toarray() if scipy.sparse.issparse(matrix) else np.asarray(matrix)
        elif path.suffix == ".txt":
            values = np.loadtxt(path)
        else:
            raise ValueError("it must end in .npy, .npz, .mtx or .txt")
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(f"{name}={path} could not be read: {error}") from None
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def solve_command(config: dict[str, Any]) -> None:
    """Plain configuration in, Result printed and x written; see ``configs/solve.yaml`` for the keys."""
    A = read_matrix(Path(str(config["matrix"])))
    b = np.ones(A.shape[0]) if config["rhs"] is None else read_vector(Path(str(config["rhs"])), "rhs")
    x0 = None if config["guess"] is None else read_vector(Path(str(config["guess"])), "guess")
    out = Path(str(config["out"]))
    if out.suffix != ".npy":
        raise ValueError(f"out={out} must end in .npy")
    if not out.resolve().parent.is_dir():
        raise ValueError(f"out={out}: its folder does not exist")
    result = solve(
        A,
        b,
        config["method"],
        x0=x0,
        rtol=config["rtol"],
        atol=config["atol"],
        maxiter=config["maxiter"],
        M=config["preconditioner"],
        null_space=config["null_space"],
        time_limit=config["time_limit"],
        throw=False,
    )
    print(result)
    content = io.BytesIO()
    np.save(content, result.x, allow_pickle=False)
    write_atomically(out, content.getvalue())
    print(f"x written to {out}" + ("" if result.converged else " (NOT a solution to the tolerance)"))
    if not result.converged:
        raise SystemExit(FAILED)


def main() -> None:
    """Console entry point."""
    run(solve_command, "solve")


if __name__ == "__main__":
    main()
