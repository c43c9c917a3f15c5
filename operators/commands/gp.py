"""``southwell-gp``: solve one boundary value problem on a box with a Gaussian process.

southwell-gp pde=poisson 'pde.rhs="-1e4*sin(100*x)"' 'pde.boundary="sin(100*x)"' pde.nodes=400
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datagen.commands.cli import FAILED, run
from datagen.files import write_atomically

KEYS = {
    "poisson": (),
    "helmholtz": ("wavenumber",),
    "advection": ("speed",),
    "allen_cahn": (),
    "reaction_diffusion": ("diffusivity", "reaction", "slope"),
    "diffusion": ("coefficient",),
}


def problem_of(pde: Mapping[str, Any]) -> Any:
    """A problem from plain configuration: names, numbers and expressions.

    Parameters
    ----------
    pde : mapping
        See ``configs/gp/pde``.
    """
    from operators.gp import Advection, AllenCahn, Diffusion, Helmholtz, Poisson, Reaction, ReactionDiffusion
    from operators.gp.expressions import function_of, function_of_points, number

    name = pde.get("name")
    if name not in KEYS:
        raise ValueError(f"pde.name must be one of {list(KEYS)}, got {name!r}")
    expected = {"name", "domain", "nodes", "rhs", "boundary", *KEYS[name]}
    if set(pde) != expected:
        raise ValueError(f"pde={name} has the keys {sorted(expected)}, got {sorted(pde)}")
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pde["domain"]):
        raise ValueError(f"pde.domain must be a list of pairs, such as [[0, 1], [0, 2*pi]], got {pde['domain']!r}")
    domain = [(number(low, "pde.domain"), number(high, "pde.domain")) for low, high in pde["domain"]]

    def of_points(key: str) -> Any:
        return function_of_points(pde[key], len(domain), f"pde.{key}")

    rest = (of_points("rhs"), of_points("boundary"), pde["nodes"])
    if name == "poisson":
        return Poisson(domain, *rest)
    if name == "helmholtz":
        return Helmholtz(domain, number(pde["wavenumber"], "pde.wavenumber"), *rest)
    if name == "advection":
        given = pde["speed"]
        speed = [number(c, "pde.speed") for c in given] if isinstance(given, list) else number(given, "pde.speed")
        return Advection(domain, speed, rest[1], rest[2], rest[0])
    if name == "allen_cahn":
        return AllenCahn(domain, *rest)
    if name == "diffusion":
        return Diffusion(domain, of_points("coefficient"), *rest)
    reaction = Reaction(function_of(pde["reaction"], "u", "pde.reaction"), function_of(pde["slope"], "u", "pde.slope"))
    return ReactionDiffusion(domain, number(pde["diffusivity"], "pde.diffusivity"), reaction, *rest)


def gp_command(config: dict[str, Any]) -> None:
    """Plain configuration in; a summary printed, solution and picture written; see ``configs/gp/gp.yaml``."""
    from operators.gp import solve

    out, plot = Path(str(config["out"])), config["plot"] and Path(str(config["plot"]))
    for key, path, suffix in (("out", out, ".npz"), ("plot", plot, ".png")):
        if path and path.suffix != suffix:
            raise ValueError(f"{key}={path} must end in {suffix}")
        if path and not path.resolve().parent.is_dir():
            raise ValueError(f"{key}={path}: its folder does not exist")
    problem = problem_of(config["pde"])
    solution = solve(problem, kernel=config["kernel"], mode=config["mode"])
    found = solution.diagnostics
    print(f"{problem}: {found.method}, {found.seconds:.2f} s")
    print(f"residual between the nodes, relative: {found.residual:.2e}")
    for note in found.notes:
        print(f"note: {note}")
    content = io.BytesIO()
    std = solution.std(problem.points()).reshape(problem.nodes)
    coordinates = {f"axis_{a}": x for a, x in enumerate(solution.axes)}
    np.savez(content, u=solution.u, std=std, **coordinates)  # type: ignore[arg-type]
    write_atomically(out, content.getvalue())
    if plot:
        from operators.gp.plots import picture
        from operators.plots import save_figure

        save_figure(picture(solution), plot)
    print(f"written: {out}" + (f", {plot}" if plot else ""))
    if not found.converged:
        raise SystemExit(FAILED)


def main() -> None:
    """Console entry point."""
    run(gp_command, "gp", folder="configs/gp")


if __name__ == "__main__":
    main()
