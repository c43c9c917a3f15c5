"""Adapters: what is frozen and what is learned, that the start is the trained network, and what checkpoints hold."""

from importlib.resources import files

import numpy as np
import pytest
import torch

from operators.checkpoint import load_checkpoint, rebuild_model
from operators.models import ScOT, models
from operators.predict import load
from operators.trainer import train

SCOT = {
    "name": "scot",
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "skip_connections": [1, 0],
    "window_size": 4,
}
ADAPTERS = {
    "lora": {"name": "lora", "rank": 2, "alpha": 4.0},
    "eva": {"name": "eva", "rank": 2, "alpha": 4.0, "batches": 2},
    "randlora": {"name": "randlora", "rank": 2, "alpha": 40.0},
}
COMMON = {"targets": ["query", "dense"], "trained": ["patch_recovery"]}


@pytest.fixture
def base(make_config, make_store, tmp_path):
    config = make_config(model=SCOT, trainer={"epochs": 1, "batch_size": 12}, out=str(tmp_path / "base"))
    train(config, make_store())
    return str(tmp_path / "base" / "best.pt")


@pytest.fixture
def make_tuned(base, make_config, tmp_path):
    def make(adapter, **changes):
        return make_config(
            model={"name": "pretrained", "path": base},
            adapter={**ADAPTERS[adapter], **COMMON},
            out=str(tmp_path / "tuned"),
            **{"trainer": {"epochs": 2, "batch_size": 12}, **changes},
        )

    return make


@pytest.fixture(autouse=True)
def _peft():
    pytest.importorskip("peft")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_training_changes_the_adapter_alone_and_its_checkpoint_holds_nothing_else(
    adapter, base, make_tuned, make_store, tmp_path
):
    train(make_tuned(adapter), make_store(seed=1))
    content = load_checkpoint(tmp_path / "tuned" / "best.pt")
    state, before = content["model"]["state"], load_checkpoint(base)["model"]["state"]
    kinds = {name.rsplit(".", 3)[-3 if "lora_" in name and "randlora" not in name else -2] for name in state}
    assert all("lora" in name or name.startswith("patch_recovery") for name in state), kinds
    assert {name for name in before if name.startswith("patch_recovery")} <= state.keys()
    size = sum(value.numel() for value in state.values())
    assert size < 0.5 * sum(value.numel() for value in before.values())  # of a network of width 8, at rank 2
    # What it predicts is what the adapted network predicted: validation says so.
    store, predictor = make_store(seed=1), load(tmp_path / "tuned" / "best.pt")
    truth = store.read("validation", "solution")[:, None]
    error = predictor.predict(store.read("validation", "source")[:, None]) - truth
    relative = np.sqrt((error**2).sum((1, 2, 3)) / (truth**2).sum((1, 2, 3))).mean()
    best = min(content["history"], key=lambda row: row["validation_loss"])
    assert relative == pytest.approx(best["validation_relative_l2"], rel=1e-4)
    # The adapters are dissolved: the keys are the plain network's, frozen weights that are no target are untouched.
    merged = rebuild_model(content).state_dict()
    assert merged.keys() == before.keys()
    untouched = [name for name in before if ".value." in name or ".norm." in name or "embeddings" in name]
    assert untouched
    assert all(torch.equal(merged[name], before[name]) for name in untouched)
    changed = [name for name in before if ".query.weight" in name or ".dense.weight" in name]
    assert changed
    assert not any(torch.equal(merged[name], before[name]) for name in changed)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_training_begins_at_the_trained_network(adapter, base, make_tuned, make_store, tmp_path):
    config = make_tuned(adapter, optimizer={"lr": 0.0}, trainer={"epochs": 1, "batch_size": 12})
    train(config, make_store())
    fields = make_store().read("test", "source")[:, None]
    tuned, before = load(tmp_path / "tuned" / "best.pt"), load(base)
    assert np.abs(tuned.predict(fields) - before.predict(fields)).max() < 1e-5 * np.abs(before.predict(fields)).max()


def test_a_run_is_resumed_with_the_same_bits(make_tuned, make_store, tmp_path):
    unbroken = make_tuned("lora")
    train(unbroken, make_store())
    broken = {**unbroken, "out": str(tmp_path / "broken")}
    for _ in range(20):
        now = {**unbroken["trainer"], "max_minutes": 0.0, "checkpoint_minutes": 0.0}
        if train({**broken, "trainer": now}, make_store()).finished:
            break
    first, second = (load_checkpoint(tmp_path / name / "last.pt")["model"]["state"] for name in ("tuned", "broken"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_eva_begins_with_the_principal_directions_of_the_inputs():
    from operators.adapters import adapt

    torch.manual_seed(0)
    model = ScOT(1, 1, embed_dim=8, depths=[1], num_heads=[1], skip_connections=[0], window_size=4).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    batches = [[torch.randn(4, 1, 16, 16), torch.rand(4)] for _ in range(3)]
    layer, seen = model.encoder.layers[0].blocks[0].intermediate.dense, []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].flatten(0, -2)))
    for batch in batches:
        model(*batch)
    handle.remove()
    data = torch.cat(seen)
    adapt(model, {**ADAPTERS["eva"], "targets": ["dense"], "trained": [], "batches": 3}, batches)
    found = model.encoder.layers[0].blocks[0].intermediate.dense.lora_A["default"].weight.detach()
    # Of all directions of two, the leading singular vectors of the centred inputs keep most of the variance.
    centred = data - data.mean(dim=0)
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    kept = torch.linalg.matrix_norm(centred @ torch.linalg.qr(found.T)[0]) ** 2
    assert kept / (values[:2] ** 2).sum() > 0.99  # incremental, in batches
    assert vectors.shape == (8, 8)


def test_frozen_weights_that_changed_or_went_are_a_sentence(base, make_tuned, make_store, tmp_path):
    from operators.checkpoint import save_checkpoint

    train(make_tuned("lora", trainer={"epochs": 1, "batch_size": 12}), make_store())
    content = load_checkpoint(base)
    name = next(n for n in content["model"]["state"] if ".value.weight" in n)
    content["model"]["state"][name][0, 0] += 1.0
    content.pop("format_version")
    save_checkpoint(base, content)
    with pytest.raises(ValueError, match=r"an adapter alone, of the weights at .*base/best.pt, and those have changed"):
        load(tmp_path / "tuned" / "best.pt")
    with pytest.raises(ValueError, match="was trained from other weights than those that are now at"):
        train(make_tuned("lora", trainer={"epochs": 1, "batch_size": 12}), make_store())
    (tmp_path / "base" / "best.pt").unlink()
    with pytest.raises(ValueError, match=r"holds an adapter \(lora\) beside the weights at .* no checkpoint at"):
        load(tmp_path / "tuned" / "best.pt")


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"name": "lorra"}, "unknown adapter 'lorra'. Did you mean 'lora'"),
        ({"name": "lora", "targets": ["qurey"]}, "no linear layer is called 'qurey'. Did you mean 'query'"),
        ({"name": "lora", "trained": ["embedings"]}, "'embedings' is no part of the model. Did you mean 'embeddings'"),
        ({"name": "eva", "batches": 0}, "batches must be at least 1"),
        ({"name": "lora", "ranks": 3}, "no argument 'ranks'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(adapter, message, make_tuned, make_store, tmp_path):
    config = make_tuned("lora")
    with pytest.raises(ValueError, match=message):
        train({**config, "adapter": {**COMMON, **adapter}}, make_store())
    assert not (tmp_path / "tuned").exists()


def test_an_adapter_needs_weights_from_a_file(make_config, make_store):
    with pytest.raises(ValueError, match="must come from a file: model=pretrained or model=poseidon, got model=scot"):
        train(make_config(model=SCOT, adapter={**ADAPTERS["lora"], **COMMON}), make_store())


def test_a_network_with_a_dissolved_adapter_is_a_start_again(make_tuned, make_store, tmp_path):
    train(make_tuned("lora", trainer={"epochs": 1, "batch_size": 12}), make_store())
    again = models.build("pretrained", path=str(tmp_path / "tuned" / "best.pt"), in_channels=1, out_channels=1)
    merged = rebuild_model(load_checkpoint(tmp_path / "tuned" / "best.pt")).state_dict()
    assert all(torch.equal(value, merged[name]) for name, value in again.state_dict().items())


def test_the_random_matrices_of_randlora_come_from_the_checkpoint(make_tuned, make_store, tmp_path):
    from operators.adapters import adapt, load_learned

    train(make_tuned("randlora", trainer={"epochs": 1, "batch_size": 12}), make_store())
    entry = load_checkpoint(tmp_path / "tuned" / "best.pt")["model"]
    fields = torch.randn(2, 1, 16, 16)
    answers = []
    for seed in (0, 1):  # as on a machine that draws others
        model = models.build("pretrained", **entry["base"]["arguments"])
        adapt(model, {**entry["adapter"], "seed": seed})
        load_learned(model, entry)
        answers.append(model.eval()(fields))
    assert torch.equal(*answers)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_of_the_configurations_fits_scot(name):
    from omegaconf import OmegaConf

    from operators.adapters import adapt

    config = OmegaConf.to_container(OmegaConf.load(files("configs") / "adapter" / f"{name}.yaml"))
    model = models.build("scot", 1, 1, embed_dim=16, depths=[1], num_heads=[2], skip_connections=[1])
    adapt(model, config)
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("lora" in name for name in learned)
    assert {name.split(".")[0] for name in learned if "lora" not in name} == {"embeddings", "patch_recovery"}
