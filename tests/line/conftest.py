"""Pages of docs/ run as a person runs them: block by block, in one folder, with the commands of this checkout."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


class Shell:
    """Runs blocks of bash and Python in a folder, in which nothing else is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tools, self.site = folder / "work", folder / "bin", folder / "site"
        self.folder.mkdir()
        self.tools.mkdir()
        for name, entry in SCRIPTS.items():
            self.command(name, entry.removesuffix(":main"))
        self.tool("python", f'exec {sys.executable} "$@"')
        python_path = os.pathsep.join([str(self.site), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {**os.environ, "PATH": f"{self.tools}:{os.environ['PATH']}", "PYTHONPATH": python_path}
        self.environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}

    def tool(self, name: str, script: str) -> None:
        """A command made of a line of bash."""
        (self.tools / name).write_text(f"#!/bin/bash\n{script}\n")
        (self.tools / name).chmod(0o755)

    def command(self, name: str, module: str) -> None:
        """A console script, from this checkout."""
        self.tool(name, f'exec {sys.executable} -m {module} "$@"')

    def install(self, project: str, **modules: str) -> None:
        """A package as pip would leave it: its modules, and the metadata that its pyproject.toml asks for."""
        metadata = tomllib.loads(project)["project"]
        name, version = metadata["name"], metadata["version"]
        info = self.site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        for module, text in modules.items():
            (self.site / f"{module}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for group, points in metadata["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

    @staticmethod
    def blocks(page: str, *kinds: str) -> list[tuple[str, str]]:
        """``(kind, text)`` of the fenced blocks of a page that are of these kinds, in order."""
        text = (ROOT / page).read_text()
        found = re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)
        return [(kind, block) for kind, block in found if kind in kinds]

    def bash(self, block: str, code: int = 0) -> str:
        """Standard output, or standard error where failure is expected; another exit code fails the test."""
        return self._run(
            code, "bash", "-euo", "pipefail", "-m", "-c", block
        )  # -m: jobs have numbers, as where a person types

    def python(self, block: str) -> str:
        """The same of a script."""
        return self._run(0, sys.executable, "-c", block)

    def _run(self, code: int, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, f"{words[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stderr if code else done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)
