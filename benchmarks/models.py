"""FNO and TFNO against neuraloperator, and latent spectral models against the published code: a training step.

python -m benchmarks.models
python -m benchmarks.models --lsm LSM_2D.py    # models/LSM_2D.py of github.com/thuml/Latent-Spectral-Models
python -m benchmarks.models --device cuda --out benchmarks/results/models_cuda.json

A step is a forward and a backward pass in training mode, on the same weights and inputs, in one process and with one
allocator; outputs and the gradient of the input are compared first. Memory is the most that torch takes in a step. The
extra `peers` holds neuraloperator.
"""

import argparse
import json
import types
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import RESULTS, Answer, Entry, run, table
from operators.convert import from_lsm, from_neuraloperator


def _entry(
    name: str,
    problem: str,
    peers: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]],
    x: Tensor,
    agreement: float,
) -> Entry:
    """Peers are a model and how fields ``(batch, channels, *grid)`` go through it, all on the device of `x`."""

    threads = torch.get_num_threads()
    wait = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
    for model, _ in peers.values():
        model.to(x.device)

    def step(model: nn.Module, apply: Callable[[Tensor], Tensor]) -> Callable[[], Answer]:
        def peer() -> Answer:
            torch.set_num_threads(threads)  # the harness holds every library to one
            wait()
            began, began_cpu = perf_counter(), process_time()
            model.zero_grad()
            inputs = x.clone().requires_grad_()
            outputs = apply(inputs)
            outputs.square().mean().backward()
            wait()
            seconds = perf_counter() - began, process_time() - began_cpu
            assert inputs.grad is not None
            parts = [t.detach().cpu().numpy().ravel().astype(float) for t in (outputs, inputs.grad)]
            return Answer(np.concatenate([part / np.linalg.norm(part) for part in parts]), seconds=seconds)

        return peer

    return Entry(
        name=name,
        problem=problem,
        peers={peer: step(*way) for peer, way in peers.items()},
        error=lambda answer: 0.0 if np.isfinite(answer).all() else np.inf,
        tolerance=0.0,
        agreement=agreement,
        facts={
            "threads": threads,
            "parameters": sum(p.numel() for p in next(iter(peers.values()))[0].parameters()),
            "shape": list(x.shape),
        },
    )


def fourier(points: int, batch: int, factorization: str | None, device: str) -> Entry:
    """FNO of 32 channels and 16 x 16 modes, as in neuraloperator's documentation, or TFNO of rank 0.1."""
    from neuralop.models import FNO

    torch.manual_seed(0)
    arguments = {"factorization": factorization, "rank": 0.1} if factorization else {}
    theirs = FNO((16, 16), 1, 1, 32, **arguments)
    ours = from_neuraloperator(theirs.state_dict()).train()
    name = "TFNO Tucker 0.1" if factorization else "FNO"
    return _entry(
        f"{name}, {points} x {points}, batch {batch}",
        "32 channels, 16 x 16 modes, 4 layers; forward and backward",
        {"southwell": (ours, ours), "neuraloperator 2.0.0": (theirs, theirs)},
        torch.randn(batch, 1, points, points, device=device),
        agreement=1e-4,  # single precision through some ten layers
    )


def latent(width: int, source: Path, device: str) -> Entry:
    """LSM as the published script for Navier-Stokes on 64 x 64 points has it, but for the width."""
    module = types.ModuleType("lsm")
    exec(source.read_text().replace(".cuda()", f".to('{device}')"), module.__dict__)
    options = types.SimpleNamespace(
        in_dim=1, out_dim=1, d_model=width, num_token=4, num_basis=12, patch_size="4,4", padding="0,0"
    )
    torch.manual_seed(0)
    theirs = module.Model(options)
    ours = from_lsm(theirs.state_dict()).train()
    return _entry(
        f"LSM, width {width}, 64 x 64, batch 16",
        "4 tokens, 12 basis functions, 8 heads, patches of 4 x 4; forward and backward",
        {"southwell": (ours, ours), "published code": (theirs, lambda x: theirs(x.movedim(1, -1)).movedim(-1, 1))},
        torch.randn(16, 1, 64, 64, device=device),
        # Rounding moves numbers across the corners of ReLUs and maxima, which an input's gradient feels; in double
        # precision the gradients of both codes agree to 1e-14.
        agreement=1e-2,
    )


def most_held(step: Callable[[], Answer], device: str) -> float:
    """Megabytes that torch takes at most in a step, over what it held before."""
    step()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    changes = [event.nbytes() for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return float(max(accumulate(changes))) / 1e6


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lsm", type=Path, help="LSM_2D.py of the published code, which no registry has")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "models.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # the peer's convolutions would round to 11 bits, our products do not
    forms, device = (None, "tucker"), arguments.device
    entries = [
        fourier(points, batch, form, device) for points, batch in ((64, 16), (128, 16), (64, 1)) for form in forms
    ]
    if arguments.lsm:
        entries += [latent(width, arguments.lsm, device) for width in (16, 32)]
    report = run(entries, arguments.out, arguments.rounds)
    for entry, found in zip(entries, report["entries"], strict=True):
        found["memory_mb"] = {peer: most_held(step, device) for peer, step in entry.peers.items()}
    report["device"] = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    for entry in report["entries"]:
        wall = {name: peer["wall_median"] for name, peer in entry["peers"].items()}
        first, *others = wall.values()
        memory = ", ".join(f"{megabytes:.0f}" for megabytes in entry["memory_mb"].values())
        print(
            f"{entry['name']}: {', '.join(f'{other / first:.2f}' for other in others)} times by the clock; {memory} MB"
        )


if __name__ == "__main__":
    main()
