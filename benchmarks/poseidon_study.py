"""Does pretraining pay at a size that two cores can train: a scOT of 1.2 million parameters, against FNO and itself.

    python -m benchmarks.poseidon_study --stage count                 # how many runs there will be; computes nothing
    python -m benchmarks.poseidon_study --stage generate
    python -m benchmarks.poseidon_study --stage pretrain --minutes 90
    python -m benchmarks.poseidon_study --stage finetune --minutes 90 --workers 2
    python -m benchmarks.poseidon_study --stage table                 # the tables of docs/poseidon.md
    python -m benchmarks.poseidon_study --stage all --minutes 7 --workers 4     # a machine with a GPU and more cores

Every stage goes on where it stopped; what is done is in results/poseidon_study.json, one entry a run.

A scOT learns a mixture of Navier-Stokes and compressible Euler flows (`experiment=poseidon_pretrain`), and is then
fine-tuned (`experiment=poseidon_finetune`) on Allen-Cahn and on the wave equation, which it never saw, with 16, 64 and
256 trajectories; an FNO and a scOT from scratch have the same pairs of frames, the same number of steps and the same
batches. Learning rates are chosen by validation error from four, each model and family its own, at 64 trajectories
with seed 0. Errors are of 64 test trajectories, from the first frame to the last, in normalised units:

    err = median over samples of  sum |prediction - truth| / sum |truth|      over channels and grid

    accuracy gain   AG(n) = err of FNO with n trajectories / err of the model with n
    efficiency gain EG = 256 / n, where the model with n has the error of FNO with 256 (log-linear between sizes)

as Poseidon defines them, there at other numbers of trajectories (arXiv:2405.19101, section 4).
"""

import argparse
import copy
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS

SIZES, SEEDS, MIDDLE = (16, 64, 256), (0, 1, 2), 64
FRAMES = 11
FLOWS = {
    "ns": {"name": "navier_stokes", "nu": 2e-3, "forcing": "none", "standard_deviation": 5.0, "final_time": 1.0},
    "ce-gauss": {"name": "euler", "setup": "gaussian", "parts": 30, "final_time": 1.0},
    "ce-crp": {"name": "euler", "setup": "curved_riemann", "final_time": 0.5},
    "ce-kh": {"name": "euler", "setup": "kelvin_helmholtz", "modes": 4, "final_time": 1.0},
}
FAMILIES = {
    "allen_cahn": {"name": "allen_cahn", "diffusivity": 2e-3, "final_time": 10.0},
    "wave": {"name": "wave", "pulse_width": 0.12, "medium": "smooth", "final_time": 1.0},
}
# Learning rates to choose from; of the fine-tuned scOT that of its body, embedding, recovery and time's layers having
# ten times as much, as Poseidon's.
RATES = {"fno": (1e-3, 3e-3, 1e-2, 3e-2), "scot": (1e-3, 3e-3, 1e-2, 3e-2), "finetuned": (3e-4, 1e-3, 3e-3, 1e-2)}
TRANSFORMERS = ("scot", "finetuned")
NAMES = {"fno": "FNO", "scot": "scOT from scratch", "finetuned": "scOT, pretrained"}


@dataclass(frozen=True)
class Scale:
    """How large the study is."""

    grid: int = 32
    flows: int = 256  # trajectories of each family of flows, of Navier-Stokes twice as many
    validation: int = 8
    test: int = 64
    sizes: tuple[int, ...] = SIZES
    seeds: tuple[int, ...] = SEEDS
    pretrain_steps: int = 5000
    pretrain_batch: int = 32
    steps: int = 528  # a multiple of the steps in an epoch, whatever the size
    batch: int = 32
    scot: tuple[str, ...] = (
        "patch_size=2",
        "embed_dim=32",
        "depths=[2,2,2]",
        "num_heads=[2,4,8]",
        "skip_connections=[1,1,0]",
        "window_size=8",
    )
    fno: tuple[str, ...] = ("n_modes=[12,12]", "hidden_channels=40", "n_layers=4")


SCALES = {
    "full": Scale(),
    "small": Scale(flows=64, test=32, sizes=(16, 64), seeds=(0,), pretrain_steps=1000, steps=200),
    "tiny": Scale(
        grid=16,
        flows=4,
        validation=2,
        test=4,
        sizes=(4, 64),
        seeds=(0,),
        pretrain_steps=6,
        pretrain_batch=4,
        steps=6,
        batch=4,
        scot=("patch_size=4", "embed_dim=8", "depths=[1,1]", "num_heads=[1,2]", "skip_connections=[1,0]"),
        fno=("n_modes=[4,4]", "hidden_channels=8", "n_layers=1"),
    ),
}


@dataclass(frozen=True)
class Run:
    """One training on one family."""

    family: str
    model: str
    size: int
    seed: int
    lr: float
    pairing: str = "all2all"

    @property
    def name(self) -> str:
        return f"{self.family}-{self.model}-{self.size}-{self.pairing}-lr{self.lr:g}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """Where everything lies, and how large it is."""

    scale: Scale
    work: Path
    result: Path
    threads: int = 1

    # ------------------------------------------------------------------------------------------------------- data

    def generate(self, name: str) -> None:
        """One dataset, if it is not there."""
        from datagen.generate import generate
        from datagen.store import Spec

        s = self.scale
        flows = s.flows * (2 if name == "ns" else 1)
        samples = {"train": flows if name in FLOWS else max(s.sizes), "validation": s.validation, "test": s.test}
        if name in FLOWS:
            samples["test"] = 1
        pde = {**(FLOWS | FAMILIES)[name], "grid": s.grid, "frames": FRAMES}
        generate(Spec(pde, 8, samples, 64, {"method": "auto", "rtol": 1e-8}), self.work / name, executor="serial")

    def store(self, name: str, size: int | None = None) -> Any:
        """A dataset; with `size` its first trajectories alone."""
        from datagen.store import open_store

        store = open_store(self.work / name)
        if size is None:
            return store
        part = copy.copy(store)
        part.sizes = {**store.sizes, "train": size}
        part.spec = {**store.spec, "samples": part.sizes}
        return part

    # --------------------------------------------------------------------------------------------------- training

    def pretrain(self, minutes: float) -> dict[str, Any] | None:
        """Learn the mixture of flows."""
        from operators.mixture import Mixture

        mixture = Mixture([self.store(name) for name in FLOWS])
        pairs = mixture.sizes["train"] * FRAMES * (FRAMES + 1) // 2
        epochs = math.ceil(self.scale.pretrain_steps * self.scale.pretrain_batch / pairs)
        paths = ",".join(str(self.work / name) for name in FLOWS)
        overrides = ["experiment=poseidon_pretrain", f"dataset.path=[{paths}]", "model=scot"]
        overrides += ["optimizer.lr=3e-3"]  # a small network wants more than the published one's 1e-3
        overrides += [*_of_model(self.scale.scot), f"trainer.epochs={epochs}"]
        overrides += [f"trainer.batch_size={self.scale.pretrain_batch}"]
        result = self._train(overrides, self.pretrained, mixture, minutes)
        return None if result is None else {**result, "steps": epochs * math.ceil(pairs / self.scale.pretrain_batch)}

    @property
    def pretrained(self) -> Path:
        """The folder of the pretrained scOT."""
        return self.work / "pretrained"

    def finetune(self, run: Run, minutes: float) -> dict[str, Any] | None:
        """Learn one family, and measure the result; None if time is up before."""
        store = self.store(run.family, run.size)
        pairs = FRAMES * (FRAMES + 1) // 2 if run.pairing == "all2all" else FRAMES - 1
        epochs = max(1, round(self.scale.steps / math.ceil(run.size * pairs / self.scale.batch)))
        overrides = ["experiment=poseidon_finetune", f"dataset.path={self.work / run.family}", f"seed={run.seed}"]
        overrides += [f"task.pairing={run.pairing}", "task.shifted=true"]
        overrides += [f"trainer.epochs={epochs}", "trainer.patience=null"]
        overrides += [f"trainer.batch_size={self.scale.batch}", f"optimizer.lr={run.lr}"]
        if run.model == "finetuned":
            overrides += [f"model.path={self.pretrained / 'best.pt'}"]
            overrides += [f"optimizer.groups.{key}={10 * run.lr}" for key in ("embedding_recovery_lr", "time_lr")]
        else:
            arguments = self.scale.fno if run.model == "fno" else self.scale.scot
            overrides += [f"model={run.model}", *_of_model(arguments), "~optimizer.groups"]
            overrides += ["scheduler.warmup=0.1"]
        out = self.work / "runs" / run.name
        trained = self._train(overrides, out, store, minutes)
        if trained is None:
            return None
        return {**asdict(run), **trained, "epochs": epochs, **self._errors(run, out, store)}

    def _train(self, overrides: list[str], out: Path, store: Any, minutes: float) -> dict[str, Any] | None:
        import torch
        from hydra import compose, initialize_config_module
        from omegaconf import OmegaConf

        from operators.trainer import TrainingDiverged, train

        torch.set_num_threads(self.threads)
        with initialize_config_module(version_base="1.3", config_module="configs"):
            composed = compose("train", [*overrides, f"out={out}", f"trainer.max_minutes={max(minutes, 0.0)}"])
            config: Any = OmegaConf.to_container(composed, resolve=True)
        began, processor = time.monotonic(), time.process_time()
        try:
            result = train(config, store)
        except TrainingDiverged as error:
            return {"validation": math.inf, "said": str(error).split(". Try")[0]}
        if not result.finished:
            return None
        seconds = sum(row["seconds"] for row in result.history)
        return {
            "validation": result.best["validation_loss"],
            "best_epoch": int(result.best["epoch"]),
            "seconds": round(seconds, 2),  # of all calls
            "cpu_seconds": round(time.process_time() - processor, 2),  # of the last call
            "wall_seconds": round(time.monotonic() - began, 2),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        }

    def _errors(self, run: Run, out: Path, store: Any) -> dict[str, float]:
        """Median relative L1 errors of the last frame: from the first in one step, and in ten."""
        from operators.data import channels
        from operators.predict import load
        from operators.reading import Reader

        if not (out / "best.pt").exists():  # it diverged
            return {}
        predictor = load(out / "best.pt")
        reader = Reader(store, "test", predictor.inputs, predictor.outputs)
        count = len(reader)
        fields, truth = reader.inputs(0, count), reader.outputs(0, count)
        assert len(channels(store, "output")) == truth.shape[1]
        normaliser = predictor.operator.output_normaliser
        mean, deviation = (t.cpu().numpy()[:, None, None] for t in (normaliser.mean, normaliser.standard_deviation))
        times = reader.times
        predictions = {"rollout": predictor.rollout(fields, FRAMES - 1, float(times[1])).frames[:, -1]}
        if predictor.takes_lead_time:
            predictions["direct"] = predictor.predict(fields, float(times[-1]))
        axes = (1, 2, 3)
        size = np.abs((truth - mean) / deviation).sum(axis=axes)
        return {
            name: float(np.median((np.abs(p - truth) / deviation).sum(axis=axes) / size))
            for name, p in predictions.items()
        }

    # ------------------------------------------------------------------------------------------------------- runs

    def done(self) -> dict[str, dict[str, Any]]:
        """What there is of the results, by name."""
        report = json.loads(self.result.read_text()) if self.result.exists() else {}
        return dict(report.get("runs", {}))

    def keep(self, name: str, entry: dict[str, Any]) -> None:
        """Write down one more result."""
        before = json.loads(self.result.read_text()) if self.result.exists() else {}
        machines = [*before.get("machines", []), _machine()]  # runs say which device they had
        machines = [one for number, one in enumerate(machines) if one not in machines[:number]]
        runs = {**before.get("runs", {}), name: entry}
        report = {"format_version": 1, "machines": machines, "scale": asdict(self.scale)}
        report |= {"flows": FLOWS, "families": FAMILIES, "runs": runs}
        self.result.parent.mkdir(parents=True, exist_ok=True)
        beside = self.result.with_suffix(".partial")
        beside.write_text(json.dumps(report, indent=1) + "\n")
        beside.replace(self.result)

    def choices(self) -> Iterator[Run]:
        """Runs that choose the learning rates."""
        for model, rates in RATES.items():
            for family in FAMILIES:
                for lr in rates:
                    yield Run(family, model, MIDDLE, self.scale.seeds[0], lr)

    def chosen(self, family: str, model: str) -> float | None:
        """The learning rate of least validation error, once all were tried."""
        tried = [run for run in self.choices() if (run.family, run.model) == (family, model)]
        done = self.done()
        if not all(run.name in done for run in tried):
            return None
        return min(tried, key=lambda run: done[run.name]["validation"]).lr

    def planned(self) -> list[tuple[str, str, int, int, str]]:
        """Family, model, size, seed and pairing of every run of the tables; all of one seed before the next."""
        s = self.scale
        plan = []
        for seed in s.seeds:
            for size in s.sizes:
                plan += [(family, model, size, seed, "all2all") for model in RATES for family in FAMILIES]
            plan += [(family, model, MIDDLE, seed, "one_step") for model in TRANSFORMERS for family in FAMILIES]
        return plan

    def ready(self) -> list[Run]:
        """Runs that are not done and wait for nothing, in the order in which they should be made."""
        done = self.done()
        found = [run for run in self.choices() if run.name not in done]
        for family, model, size, seed, pairing in self.planned():
            lr = self.chosen(family, model)
            if lr is not None:
                run = Run(family, model, size, seed, lr, pairing)
                if run.name not in done and run not in found:
                    found.append(run)
        pretrained = "pretrained" in done
        return [run for run in found if pretrained or run.model != "finetuned"]

    def count(self) -> str:
        """How many runs there are."""
        choices = list(self.choices())
        reused = len(RATES) * len(FAMILIES)
        total = len(choices) + len(self.planned()) - reused
        return (
            f"{len(FLOWS) + len(FAMILIES)} datasets, 1 pretraining of {self.scale.pretrain_steps} steps of "
            f"{self.scale.pretrain_batch}, {total} runs of {self.scale.steps} steps of {self.scale.batch} "
            f"({len(choices)} of them choose learning rates, {reused} of which count in the tables); "
            f"{len([name for name in self.done() if name != 'pretrained'])} runs are done"
        )


def _of_model(arguments: tuple[str, ...]) -> list[str]:
    return [f"model.{each}" for each in arguments]


def _machine() -> dict[str, Any]:
    """What this was computed on."""
    import torch

    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "cpu": models[0].split(":")[1].strip(), "cores": os.cpu_count(), "torch": torch.__version__}


def _work(study: Study, what: str | Run, minutes: float) -> dict[str, Any] | None:
    """In a process of its own: make a dataset, pretrain, or make one run."""
    if isinstance(what, Run):
        return study.finetune(what, minutes)
    if what == "pretrained":
        return study.pretrain(minutes)
    study.generate(what)
    return None


def carry_out(study: Study, stages: set[str], workers: int, minutes: float) -> None:
    """As many of the stages' pieces as the time allows, several at a time, each begun when what it needs is there."""
    end = time.monotonic() + 60 * minutes
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(study.threads)
    missing = [name for name in {**FLOWS, **FAMILIES} if not (study.work / name / "manifest.json").exists()]
    to_generate = missing if "generate" in stages else []
    running: dict[Future[dict[str, Any] | None], str | Run] = {}
    failed: set[str | Run] = set()

    def next_piece() -> str | Run | None:
        under_way = set(running.values()) | failed
        if to_generate:
            return to_generate.pop(0)
        generated = {name for name in {**FLOWS, **FAMILIES} if (study.work / name / "manifest.json").exists()}
        done = study.done()
        if (
            "pretrain" in stages
            and "pretrained" not in done
            and "pretrained" not in under_way
            and generated >= {*FLOWS}
        ):
            return "pretrained"
        if "finetune" in stages:
            for run in study.ready():
                if run not in under_way and run.family in generated:
                    return run
        return None

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        while True:
            left = (end - time.monotonic()) / 60
            while left > 0 and len(running) < workers:
                piece = next_piece()
                if piece is None:
                    break
                running[pool.submit(_work, study, piece, left)] = piece
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                piece = running.pop(future)
                try:
                    entry = future.result()
                except Exception as error:  # one run that fails must not cost the others
                    failed.add(piece)
                    print(f"{_called(piece)}: {error!r}", flush=True)
                    continue
                if entry is not None:
                    study.keep(_called(piece), entry)
                    print(f"{_called(piece)}: {json.dumps(entry)}", flush=True)
                elif not isinstance(piece, str) or piece == "pretrained":
                    failed.add(piece)  # time is up
    print(study.count())


def _called(piece: str | Run) -> str:
    return piece.name if isinstance(piece, Run) else piece


# ------------------------------------------------------------------------------------------------------------- tables


def errors(study: Study, pairing: str, how: str) -> dict[tuple[str, str, int], list[float]]:
    """Errors of the runs of the tables by family, model and size, one a seed."""
    done = study.done()
    found: dict[tuple[str, str, int], list[float]] = {}
    for family, model, size, seed, kind in study.planned():
        lr = study.chosen(family, model)
        entry = None if lr is None else done.get(Run(family, model, size, seed, lr, kind).name)
        if kind == pairing and entry is not None and how in entry:
            found.setdefault((family, model, size), []).append(entry[how])
    return found


def efficiency(curve: dict[int, float], target: float, samples: int) -> str:
    """How many times fewer trajectories than `samples` a model needs for an error, log-linear between its sizes."""
    sizes = sorted(curve)
    if curve[sizes[0]] <= target:
        return f"> {samples / sizes[0]:.3g}"
    for few, many in pairwise(sizes):
        if curve[many] <= target:
            share = math.log(curve[few] / target) / math.log(curve[few] / curve[many])
            return f"{samples / (few * (many / few) ** share):.3g}"
    return f"< {samples / sizes[-1]:.3g}"


def tables(study: Study) -> str:
    """Markdown, for docs/poseidon.md."""
    lines = [study.count(), ""]
    found = errors(study, "all2all", "direct")
    sizes = study.scale.sizes
    middle = {key: statistics.median(values) for key, values in found.items()}
    for family in FAMILIES:
        lines += [f"**{family}**", ""]
        heads = [*(f"n = {n}" for n in sizes), f"AG({MIDDLE})", f"EG({max(sizes)})"]
        lines += [f"| model | lr | {' | '.join(heads)} |"]
        lines += ["|---|---:|" + "---:|" * (len(sizes) + 2)]
        fno = {n: middle[family, "fno", n] for n in sizes if (family, "fno", n) in middle}
        for model in RATES:
            curve = {n: middle[family, model, n] for n in sizes if (family, model, n) in middle}
            cells = []
            for n in sizes:
                values = found.get((family, model, n), [])
                several = f"{100 * min(values):.2f} to {100 * max(values):.2f}, {len(values)} seeds" if values else ""
                spread = f" ({several})" if len(values) > 1 else " (1 seed)"
                cells.append(f"{100 * curve[n]:.2f}{spread}" if n in curve else "—")
            gain = f"{fno[MIDDLE] / curve[MIDDLE]:.2f}" if MIDDLE in fno and MIDDLE in curve else "—"
            need = efficiency(curve, fno[max(sizes)], max(sizes)) if curve and max(sizes) in fno else "—"
            lr = study.chosen(family, model)
            lines += [f"| {NAMES[model]} | {f'{lr:.1g}' if lr else '—'} | {' | '.join(cells)} | {gain} | {need} |"]
        lines += [""]
    lines += [f"Pairs, {MIDDLE} trajectories:", ""]
    lines += ["| family | model | all2all, one step | all2all, ten steps | one-step pairs, ten steps |"]
    lines += ["|---|---|---:|---:|---:|"]
    ways = [
        errors(study, "all2all", "direct"),
        errors(study, "all2all", "rollout"),
        errors(study, "one_step", "rollout"),
    ]
    for family in FAMILIES:
        for model in TRANSFORMERS:
            values = [way.get((family, model, MIDDLE), []) for way in ways]
            cells = [
                f"{100 * statistics.median(v):.2f} ({len(v)} seed{'s' * (len(v) > 1)})" if v else "—" for v in values
            ]
            lines += [f"| {family} | {NAMES[model]} | {' | '.join(cells)} |"]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="pretraining, fine-tuning and training from scratch, compared")
    parser.add_argument("--stage", choices=("count", "generate", "pretrain", "finetune", "table", "all"), required=True)
    parser.add_argument("--scale", choices=tuple(SCALES), default="full")
    parser.add_argument("--work", type=Path, default=Path("outputs/poseidon_study"))
    parser.add_argument("--result", type=Path, default=RESULTS / "poseidon_study.json")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    given = parser.parse_args()
    study = Study(SCALES[given.scale], given.work, given.result, given.threads)
    if given.stage == "count":
        print(study.count())
    elif given.stage == "table":
        print(tables(study))
    else:
        stages = {"generate", "pretrain", "finetune"} if given.stage == "all" else {given.stage}
        carry_out(study, stages, given.workers, given.minutes)


if __name__ == "__main__":
    main()
