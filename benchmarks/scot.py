"""Poseidon-T on 128 x 128 points beside the authors' module, with the same weights, in one process.

    git clone https://github.com/camlab-ethz/poseidon /tmp/poseidon && git -C /tmp/poseidon checkout b8fa28f
    python3.11 -m venv /tmp/scot && /tmp/scot/bin/pip install torch==2.13.0 transformers==4.29.2 "numpy<2"
    python -m benchmarks.scot --official /tmp/poseidon --packages /tmp/scot/lib/python3.11/site-packages

Both run on the torch of this environment; from the other one only transformers and what it needs is taken. Each entry
has a process of its own, as what ran before shapes the heap. Memory is the most that is resident in three training
steps, over what is before the first.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import RESULTS, Answer, Entry, run, table
from operators.models import ScOT

SIZES: dict[str, Any] = {
    "image_size": 128,
    "patch_size": 4,
    "embed_dim": 48,
    "depths": [4, 4, 4, 4],
    "num_heads": [3, 6, 12, 24],
    "skip_connections": [2, 2, 2, 0],
    "window_size": 16,
    "mlp_ratio": 4.0,
    "use_conditioning": True,
}


KINDS = ("southwell", "official", "southwell, checkpointing")


class Official(nn.Module):
    """The authors' module, called as ours."""

    def __init__(self) -> None:
        super().__init__()
        from scOT.model import ScOT as Module
        from scOT.model import ScOTConfig

        self.module = Module(ScOTConfig(num_channels=4, num_out_channels=4, drop_path_rate=0.0, **SIZES))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        output: Tensor = self.module(x, time).output
        return output


def weights() -> dict[str, Tensor]:
    """Normal numbers of a size that neither vanishes nor explodes: initial ones leave little to compare."""
    torch.manual_seed(0)
    state = ScOT(4, 4, **SIZES).state_dict()
    return {
        name: torch.randn_like(t) * (t[0].numel() ** -0.5 if t[0].numel() > 1 else 0.5) for name, t in state.items()
    }


def network(kind: str) -> nn.Module:
    """One of `KINDS`."""
    if kind == "official":
        official = Official()
        official.module.load_state_dict(weights())
        return official
    ours = ScOT(4, 4, **SIZES, checkpointing="checkpointing" in kind)
    ours.load_state_dict(weights())
    return ours


def batch(samples: int) -> tuple[Tensor, Tensor]:
    """Fields and lead times."""
    torch.manual_seed(1)
    return torch.randn(samples, 4, 128, 128), torch.linspace(0.1, 1.0, samples)


def forward(model: nn.Module, x: Tensor, time: Tensor) -> Answer:
    """Prediction."""
    with torch.no_grad():
        return Answer(model(x, time).numpy())


def step(model: nn.Module, x: Tensor, time: Tensor) -> Answer:
    """Loss and all its gradients; what is compared is that of the input."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x, time).square().mean().backward()
    assert x.grad is not None
    return Answer(x.grad.numpy())


def in_double_precision(samples: int, backward: bool) -> np.ndarray:
    """What both should come to."""
    x, time = batch(samples)
    return (step if backward else forward)(network("southwell").double(), x.double(), time.double()).x


def relative_error(truth: np.ndarray) -> Any:
    """Distance from the same in double precision."""
    return lambda answer: float(np.linalg.norm(answer - truth) / np.linalg.norm(truth))


def entry(samples: int, backward: bool) -> Entry:
    """One batch size, with or without gradients."""
    x, time = batch(samples)
    networks = {kind: network(kind).train(backward) for kind in (KINDS if backward else KINDS[:2])}
    work = step if backward else forward
    # In another process, as double precision takes larger pieces of the heap, which would then be kept.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        truth = pool.submit(in_double_precision, samples, backward).result()
    what = "forward and backward" if backward else "forward, no gradients"
    return Entry(
        name=f"Poseidon-T {what}, batch {samples}",
        problem=f"{what}, {samples} x 4 x 128 x 128, random weights, float32",
        peers={kind: (lambda m=model: work(m, x, time)) for kind, model in networks.items()},
        error=relative_error(truth),
        tolerance=1e-5,
        agreement=1e-5,
        facts={"parameters": sum(p.numel() for p in networks["southwell"].parameters()), "samples": samples},
    )


def resident(line: str) -> float:
    """Megabytes of this process in memory: now (VmRSS) or at most so far (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) * 1024 / 1e6


def memory_of(kind: str, samples: int) -> dict[str, float]:
    """What three training steps need at most, in this process."""
    model, (x, time) = network(kind).train(), batch(samples)
    ctypes.CDLL(None).malloc_trim(0)  # what making the weights left behind
    before = resident("VmRSS")
    for _ in range(3):
        step(model, x, time)
    return {"before_mb": before, "peak_mb": resident("VmHWM")}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="scOT beside the authors' module")
    parser.add_argument("--official", required=True, help="folder of the authors' repository")
    parser.add_argument("--packages", required=True, help="site-packages with transformers 4.29.2")
    parser.add_argument("--out", type=Path, default=RESULTS / "scot.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--only", choices=["forward", "step", *KINDS], help="one measurement in this process, as JSON")
    arguments = parser.parse_args()
    sys.path.insert(0, arguments.official)
    sys.path.append(arguments.packages)
    torch.set_num_threads(1)
    if arguments.only in KINDS:
        arguments.out.write_text(json.dumps(memory_of(arguments.only, arguments.samples[0])))
        return
    if arguments.only:
        run([entry(n, arguments.only == "step") for n in arguments.samples], arguments.out, arguments.rounds)
        return

    def alone(what: str, samples: int) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            more = ["--only", what, "--samples", str(samples), "--out", file.name]
            subprocess.run([sys.executable, "-m", "benchmarks.scot", *sys.argv[1:], *more], check=True)
            found: dict[str, Any] = json.loads(Path(file.name).read_text())
            return found

    reports = [alone(what, samples) for samples in arguments.samples for what in ("forward", "step")]
    report = reports[0] | {"entries": [one for each in reports for one in each["entries"]]}
    report["memory"] = {f"{kind}, batch {n}": alone(kind, n) for n in arguments.samples for kind in KINDS}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    for name, found in report["memory"].items():
        more = found["peak_mb"] - found["before_mb"]
        print(f"{name}: peak {found['peak_mb']:.0f} MB, {more:.0f} MB more than before the first step")


if __name__ == "__main__":
    main()
