"""Published weights: files as their libraries write them, keys that do not fit, and code that is not run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import save_file

from operators.commands import convert as convert_command
from operators.convert import convert, from_lsm, from_neuraloperator, read_weights
from operators.models import FNO, LSM
from operators.predict import load

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ["1.0.2", "2.0.0"]


def peer(version: str) -> tuple[Path, torch.Tensor, np.ndarray]:
    """A state dict as the peer saves it, an input, and the peer's output."""
    with np.load(GOLDEN / f"neuraloperator_{version}.npz") as file:
        assert json.loads(str(file["silu_2d/arguments"]))["non_linearity"] == "silu"
        x, y = torch.from_numpy(file["silu_2d/input"]), file["silu_2d/output"]
    return GOLDEN / f"neuraloperator_{version}.pt", x, y


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_neuraloperator_gives_its_outputs(version):
    path, x, expected = peer(version)
    state = read_weights(path)
    assert state["_metadata"]["non_linearity"] == "silu"  # the function's name, not the function
    with torch.no_grad():
        output = from_neuraloperator(state)(x).numpy()
        other = from_neuraloperator(state, non_linearity="gelu")(x).numpy()
    # Single precision through two layers; another activation is seen.
    assert np.abs(output - expected).max() <= 3e-6 * np.abs(expected).max()
    assert np.abs(other - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_converted_checkpoint_predicts(version, tmp_path):
    path, x, expected = peer(version)
    sentence = convert("neuraloperator", path, tmp_path / "fno.pt", {})
    assert "n_modes=[6, 4]" in sentence
    predictor = load(tmp_path / "fno.pt", "cpu")
    assert [channel.name for channel in predictor.inputs] == ["input_0", "input_1"]
    np.testing.assert_allclose(predictor.predict(x.numpy()), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_tensors_alone_say_the_sizes(tmp_path):
    torch.manual_seed(0)
    arguments = {"n_modes": [4, 5], "hidden_channels": 6, "n_layers": 2, "lifting_channel_ratio": 1.67,
                 "channel_mlp_expansion": 0.8, "norm": "group_norm", "fno_skip": "soft-gating"}  # fmt: skip
    model = FNO(in_channels=2, out_channels=3, **arguments)
    state = {}
    for key, value in model.state_dict().items():  # to neuraloperator's names, by hand
        layer = key.split(".")[1]
        name = key.replace("first", "fcs.0").replace("second", "fcs.1")
        for ours, theirs in (
            [("norms.0", f"norm.{2 * int(layer)}"), ("norms.1", f"norm.{2 * int(layer) + 1}")]
            if (key.startswith("blocks"))
            else []
        ):
            name = name.replace(f"blocks.{layer}.{ours}", f"fno_blocks.{theirs}")
        for ours, theirs in [("convolution", "convs"), ("skip", "fno_skips"), ("mlp_skip", "channel_mlp_skips"),
                             ("mlp", "channel_mlp")]:  # fmt: skip
            name = name.replace(f"blocks.{layer}.{ours}.", f"fno_blocks.{theirs}.{layer}.")
        if "fcs" in name and "weight" in name:
            value = value[..., None]
        elif "convs" in name and name.endswith("bias"):
            value = value[:, None, None]
        elif "skips" in name:
            value = value[None, :, None, None]
        elif "tensor" in name:
            value = torch.view_as_complex(value)
        state[name] = value
    converted = from_neuraloperator(state)
    x = torch.randn(2, 2, 8, 9)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model.eval()(x), rtol=0, atol=0)


def test_misfits_are_named():
    state = {k: v for k, v in read_weights(peer("2.0.0")[0]).items() if k != "_metadata"}
    with pytest.raises(ValueError, match=r"keys without a place: fno_blocks.extra.0.weight, decoder.bias"):
        from_neuraloperator({**state, "fno_blocks.extra.0.weight": torch.ones(2), "decoder.bias": torch.ones(2)})
    with pytest.raises(ValueError, match=r"convs.1.bias \(shape \(5, 1, 1\), expected \(4,\)\)"):
        from_neuraloperator({**state, "fno_blocks.convs.1.bias": torch.ones(5, 1, 1)})
    without = {k: v for k, v in state.items() if k != "fno_blocks.channel_mlp.1.fcs.0.bias"}
    with pytest.raises(ValueError, match=r"weights without a key: blocks.1.mlp.first.bias"):
        from_neuraloperator(without)
    with pytest.raises(ValueError, match=r"must have the key projection.fcs.0.weight"):
        from_neuraloperator({k: v for k, v in state.items() if not k.startswith("projection")})
    with pytest.raises(ValueError, match="no state dict of a neuraloperator FNO"):
        from_neuraloperator({"w": torch.ones(1)})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"complex_data": True}, "complex_data=True has no counterpart"),
        ({"max_n_modes": [8, 8]}, "max_n_modes"),
        ({"resolution_scaling_factor": [1, 2]}, "resolution_scaling_factor"),
        ({"non_linearity": torch.sin}, "non_linearity='sin' has no counterpart"),
        ({"domain_padding": 0.1, "domain_padding_mode": "one-sided"}, "both sides are padded"),
        ({"n_modes": [5, 4], "domain_padding_mode": "one-sided"}, "other wavenumbers"),
    ],
)
def test_options_without_a_counterpart_are_refused(metadata, message):
    state = read_weights(peer("2.0.0")[0])
    state["_metadata"] = {**state["_metadata"], **metadata}
    with pytest.raises(ValueError, match=message):
        from_neuraloperator(state)


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = read_weights(peer("2.0.0")[0])
    torch.save({**state, "_metadata": {**state["_metadata"], "non_linearity": Malicious()}}, "bad.pt")
    with pytest.raises(ValueError, match=r"bad.pt is refused: it names .*, which could run code"):
        read_weights("bad.pt")
    assert not Path("ran").exists()
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    with pytest.raises(ValueError, match=r"save model.state_dict\(\), not the model"):
        read_weights("module.pt")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "none.pt")
    for name in ("bad.pt", "bad.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(ValueError, match=r"refused|cannot be read"):
            read_weights(tmp_path / name)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        read_weights(tmp_path / "list.pt")


@pytest.mark.parametrize("grid", [(20,), (18, 33)])
def test_latent_spectral_models_keep_their_outputs(grid, tmp_path):
    torch.manual_seed(0)
    model = LSM(2, 3, len(grid), width=4, n_tokens=3, n_basis=5, n_heads=2)
    model.train()(torch.randn(2, 2, *grid))  # moves the averages of batch norm
    save_file(model.state_dict(), tmp_path / "lsm.safetensors")
    convert("lsm", tmp_path / "lsm.safetensors", tmp_path / "lsm.pt", {})
    x = torch.randn(2, 2, *grid)
    with torch.no_grad():
        expected = model.eval()(x)
        torch.testing.assert_close(from_lsm(model.state_dict())(x), expected, rtol=0, atol=0)
    np.testing.assert_array_equal(load(tmp_path / "lsm.pt", "cpu").predict(x.numpy()), expected.numpy())
    with pytest.raises(ValueError, match=r"keys without a place: fftproject_in.weights1"):
        from_lsm({**model.state_dict(), "fftproject_in.weights1": torch.ones(2)})
    with pytest.raises(ValueError, match=r"must have the key process1.latent"):
        from_lsm({k: v for k, v in model.state_dict().items() if k != "process1.latent"})


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run southwell-convert in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["convert", *arguments])
        GlobalHydra.instance().clear()
        convert_command.main()

    return run


def test_the_command(command, capsys):
    path = peer("2.0.0")[0]
    command("source=neuraloperator", f"input={path}", "output=fno.pt", "arguments={domain_padding: 0.25}")
    assert "fno.pt: fno with 1,387 parameters" in capsys.readouterr().out
    padded = load("fno.pt", "cpu")
    assert padded.operator.module.domain_padding == [0.25, 0.25]
    for arguments, message in [
        (["source=neuraloperator", f"input={path}", "output=fno.pt"], "exists already"),
        (["source=neuraloperator", f"input={path}", "output=no/fno.pt"], "folder does not exist"),
        (["source=keras", f"input={path}", "output=b.pt"], "source must be 'neuraloperator' or 'lsm'"),
        (["source=lsm", f"input={path}", "output=b.pt"], "must have the key inc.double_conv.0.weight"),
        (["source=neuraloperator", "input=none", "output=b.pt"], "there is no file none"),
        (["source=neuraloperator", f"input={path}", "output=b.pt", "arguments={rnak: 1}"], "Did you mean 'rank'"),
    ]:
        with pytest.raises(SystemExit) as end:
            command(*arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
