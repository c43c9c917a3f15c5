"""Reading Poseidon checkpoints: what loads, what is drawn anew, what is refused; and fine-tuning from them."""

import json
import logging
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import operators
from operators.checkpoint import load_checkpoint, rebuild_model
from operators.models import ScOT, models
from operators.models.poseidon import load_poseidon
from operators.trainer import train

CONFIG = {
    "model_type": "swinv2",
    "image_size": 16,
    "patch_size": 2,
    "num_channels": 4,
    "num_out_channels": 3,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_layers": 2,
    "num_heads": [1, 2],
    "skip_connections": [1, 0],
    "window_size": 4,
    "mlp_ratio": 2.0,
    "qkv_bias": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "use_conditioning": True,
    "learn_residual": False,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.02,
    "hidden_size": 16,
    "pretrained_window_sizes": [0, 0, 0, 0],
    "p": 1,
    "channel_slice_list_normalized_loss": [0, 1, 3, 4],
    "residual_model": "convnext",
    "torch_dtype": "float32",
    "transformers_version": "4.29.2",
}


@pytest.fixture
def published(tmp_path):
    """A folder as `save_pretrained` of the authors' code leaves it, and the network in it."""
    torch.manual_seed(0)
    model = ScOT(4, 3, 16, 2, 8, [1, 2], [1, 2], [1, 0], 4, 2.0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    folder = tmp_path / "Poseidon"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder, model


def rewrite(folder, change):
    """Change the file's tensors."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_the_network_of_a_folder(published):
    folder, model = published
    x, time = torch.randn(2, 4, 16, 16), torch.tensor([0.1, 0.7])
    loaded = operators.load_poseidon(folder)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x, time), model(x, time))
    with pytest.warns(UserWarning, match="trained on 0 to 1"):
        loaded(x, torch.tensor([0.1, 1.1]))


def test_the_file_may_go_once_it_is_read(published):
    folder, model = published
    loaded = load_poseidon(folder)
    size = (folder / "model.safetensors").stat().st_size
    (folder / "model.safetensors").write_bytes(bytes(size))
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), model.parameters(), strict=True))


def test_half_precision_is_read_as_single(published):
    folder, model = published
    rewrite(folder, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    for p, q in zip(load_poseidon(folder).parameters(), model.parameters(), strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, q.half().float())


@pytest.mark.parametrize(("ins", "outs"), [(4, 1), (2, 3), (5, 2), (None, None)])
def test_other_channels_replace_only_the_kernels_that_depend_on_them(published, ins, outs, caplog):
    folder, model = published
    with caplog.at_level(logging.INFO):
        loaded = load_poseidon(folder, in_channels=ins, out_channels=outs)
    replaced = set()
    if ins not in (4, None):
        replaced |= {"embeddings.patch_embeddings.projection.weight"}
    if outs not in (3, None):
        replaced |= {f"patch_recovery.{name}" for name in ("projection.weight", "projection.bias", "mixup.weight")}
    before = model.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name not in replaced), name
        assert (name in caplog.text) == (name in replaced), name
    drawn = loaded.embeddings.patch_embeddings.projection.weight
    if ins == 5:  # normal with deviation 0.02, known to 6 % from 160 numbers
        assert drawn.std().item() == pytest.approx(0.02, rel=0.25)
    y = loaded(torch.randn(1, ins or 4, 16, 16))
    assert y.shape == (1, outs or 3, 16, 16)
    y.square().sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("patch_recovery.mixup.weight"), "patch_recovery.mixup.weight missing, none not known"),
        (lambda t: t.update(head=torch.zeros(1)), "none missing, head not known"),
        (
            lambda t: [t.update({f"swinv2.{name}": t.pop(name)}) for name in list(t)],
            r"and \d+ more missing, swinv2.* and \d+ more not known",
        ),
        (
            lambda t: t.update({"embeddings.patch_embeddings.projection.weight": torch.zeros(8, 3, 2, 2)}),
            r"projection.weight has shape \(8, 3, 2, 2\), so it has another number of channels, but config.json asks",
        ),
        (
            lambda t: t.update({"encoder.layers.0.blocks.0.attention.self.query.weight": torch.zeros(4, 8)}),
            r"query.weight has shape \(4, 8\), but config.json asks for \(8, 8\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(published, change, message):
    folder, _ = published
    rewrite(folder, change)
    with pytest.raises(ValueError, match=message):
        load_poseidon(folder, in_channels=1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "hidden_size": 768}, "another model .model_type 'bert'. than scOT"),
        ({key: v for key, v in CONFIG.items() if key != "skip_connections"}, "has no skip_connections"),
        (CONFIG | {"hidden_act": "relu"}, "hidden_act='relu'"),
        (CONFIG | {"num_channels": 3}, "another number of channels"),
        (CONFIG | {"depths": [1, 3]}, "missing"),
        (CONFIG | {"num_heads": [1, 2, 4]}, "num_heads must list"),
        ([], "another model"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(published, config, message):
    folder, _ = published
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load_poseidon(folder)


@pytest.mark.parametrize("kept", [0, 4, 200, 30_000])
def test_a_truncated_file_is_refused(published, kept):
    folder, _ = published
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged or cut off"):
        load_poseidon(folder)


def test_folders_without_the_files_are_refused(published, tmp_path):
    folder, _ = published
    with pytest.raises(ValueError, match=r"has no config.json"):
        load_poseidon(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model.safetensors; pickled weights"):
        load_poseidon(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        load_poseidon(folder)
    with pytest.raises(ValueError, match="revision='main' is for names on the hub"):
        load_poseidon(folder, revision="main")


def test_a_name_on_the_hub_without_its_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install .southwell.hub.., or download config.json"):
        load_poseidon("camlab-ethz/Poseidon-T")


def test_a_name_on_the_hub_is_fetched(published, monkeypatch):
    folder, model = published
    asked = []

    class Hub:
        @staticmethod
        def snapshot_download(name, revision, allow_patterns):
            asked.append((name, revision, allow_patterns))
            if name == "camlab-ethz/offline":
                raise ConnectionError("no route to host\nand more")
            return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    loaded = load_poseidon("camlab-ethz/Poseidon-T", revision="abc")
    assert asked == [("camlab-ethz/Poseidon-T", "abc", ["config.json", "model.safetensors"])]
    assert torch.equal(loaded.patch_recovery.mixup.weight, model.patch_recovery.mixup.weight)
    with pytest.raises(ValueError, match=r"could not be fetched from the hub .ConnectionError: no route to host"):
        load_poseidon("camlab-ethz/offline")


def test_fine_tuning_starts_from_the_weights_and_its_checkpoint_stands_alone(published, make_store, make_config):
    folder, model = published
    config = make_config(
        model={"name": "poseidon", "path": str(folder)},
        optimizer={
            "name": "adamw",
            "lr": 1e-12,
            "groups": {"name": "poseidon", "embedding_recovery_lr": 1e-2, "time_lr": 1e-12},
        },
        trainer={"epochs": 2},
    )
    history = train(config, make_store()).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    (folder / "model.safetensors").unlink()
    content = load_checkpoint(f"{config['out']}/last.pt")
    assert content["model"]["name"] == "scot"
    tuned = rebuild_model(content)
    # Only embedding and recovery had a rate to speak of; what does not depend on channels began at the file's values.
    for (name, p), q in zip(tuned.named_parameters(), model.parameters(), strict=True):
        if "embeddings" not in name and "patch_recovery" not in name:
            torch.testing.assert_close(p, q, rtol=0, atol=1e-9)
    bias = "embeddings.patch_embeddings.projection.bias"
    moved = (tuned.state_dict()[bias] - model.state_dict()[bias]).abs().max().item()
    # Adam's steps are at most their rate; there were 2 epochs of 5 batches.
    assert 0 < moved < 0.1
    assert np.isfinite(history[-1]["validation_loss"])


def test_registered_by_name(published):
    folder, _ = published
    assert models["poseidon"].conditioned_on_time
    assert models.build("poseidon", path=str(folder), in_channels=1, out_channels=1).in_channels == 1
