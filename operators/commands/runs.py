"""``southwell-runs``: a table of all runs of a folder, best first, as ``runs.md`` and ``runs.csv`` in it.

southwell-runs runs/rank
"""

import argparse
from pathlib import Path

from datagen.commands.cli import FAILED, REFUSED, check_configs, fail, said


def runs_command(folder: Path) -> str:
    """Write ``runs.md`` and ``runs.csv`` of the runs in a folder; returns the table."""
    # torch takes seconds to import, and --help should not wait for it.
    from datagen.files import write_atomically
    from operators.runs import as_csv, as_markdown, summarise

    rows = summarise(folder)
    table = as_markdown(rows)
    write_atomically(folder / "runs.csv", as_csv(rows).encode())
    write_atomically(folder / "runs.md", table.encode())
    return table


def main() -> None:
    """Console entry point."""
    check_configs()
    parser = argparse.ArgumentParser(prog="southwell-runs", description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("folder", type=Path, help="of a sweep (the out of southwell-train -m), or of several")
    arguments = parser.parse_args()
    try:
        print(runs_command(arguments.folder), end="")
    except ValueError as error:
        fail(str(error), REFUSED)
    except OSError as error:
        fail(said(error), FAILED)


if __name__ == "__main__":
    main()
