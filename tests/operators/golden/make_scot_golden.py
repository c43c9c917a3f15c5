"""Make scot_golden.npz: outputs of the authors' scOT on random weights, to compare ours with.

    git clone https://github.com/camlab-ethz/poseidon /tmp/poseidon && git -C /tmp/poseidon checkout b8fa28f
    python3.11 -m venv /tmp/scot && /tmp/scot/bin/pip install torch==2.13.0 transformers==4.29.2 "numpy<2"
    PYTHONPATH=/tmp/poseidon /tmp/scot/bin/python tests/operators/golden/make_scot_golden.py

Weights, inputs and masks are not stored: `random_state` and `random_input` make the same ones wherever they run (numpy
promises the stream of `RandomState`). Every case stores the output, thinned out where it is large; "poseidon_t/shapes"
has the names and shapes of Poseidon-T's state dict (JSON).
"""

import json
from pathlib import Path

import numpy as np

SMALL = {
    "image_size": 32,
    "patch_size": 2,
    "in_channels": 3,
    "out_channels": 2,
    "embed_dim": 12,
    "depths": [2, 3],
    "num_heads": [2, 3],
    "skip_connections": [1, 0],
    "window_size": 4,
    "mlp_ratio": 2.0,
    "use_conditioning": True,
}

# Of each case: what differs from SMALL, points of the input's axes, lead times, kind of mask, thinning of the output.
CASES = {
    "shifted": ({}, 32, [0.0, 0.37, 1.0], None, 1),
    "one_sample": ({}, 32, [0.6], None, 1),
    "clamped": ({"window_size": 16}, 32, [0.0, 0.37, 1.0], None, 1),
    "odd_window": ({"window_size": 5, "depths": [3, 1]}, 32, [0.25, 0.8], None, 1),
    "three_stages": (
        {"depths": [1, 2, 2], "num_heads": [1, 2, 4], "skip_connections": [2, 1, 2]},
        32,
        [0.1, 0.9],
        None,
        1,
    ),
    "coarse_input": ({}, 24, [0.5, 1.0], None, 1),
    "fine_input": ({}, 48, [0.5, 1.0], None, 3),
    "channel_mask": ({}, 32, [0.2, 0.7], "channels", 1),
    "point_mask": ({}, 32, [0.2, 0.7], "points", 1),
    "residual": ({"learn_residual": True}, 24, [0.2, 0.7], None, 1),
    "unconditioned": ({"use_conditioning": False, "layer_norm_eps": 0.1}, 32, [0.2, 0.7], None, 1),
    "epsilon": ({"layer_norm_eps": 0.1}, 32, [0.2, 0.7], None, 1),
    "resnet": ({"residual_model": "resnet", "skip_connections": [2, 1]}, 32, [0.2, 0.7], None, 1),
    "no_bias": ({"qkv_bias": False, "use_absolute_embeddings": True}, 32, [0.2, 0.7], None, 1),
    "poseidon_t": (
        {
            "image_size": 128,
            "patch_size": 4,
            "in_channels": 4,
            "out_channels": 4,
            "embed_dim": 48,
            "depths": [4, 4, 4, 4],
            "num_heads": [3, 6, 12, 24],
            "skip_connections": [2, 2, 2, 0],
            "window_size": 16,
            "mlp_ratio": 4.0,
        },
        128,
        [0.35, 0.7],
        None,
        5,
    ),
}


def random_state(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights large enough that every part of the network matters; initial ones leave almost nothing of the input."""
    stream = np.random.RandomState(0)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = stream.standard_normal(shape)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape)
        elif name.endswith("running_var"):
            values = 0.5 + values**2
        elif name.endswith("logit_scale"):
            values = 2.5 + 1.5 * values  # some above the largest that counts, ln 100
        else:
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
            values = values * (0.5 if fan_in == 1 else fan_in**-0.5)
        state[name] = np.asarray(values, dtype=np.float32)
    return state


def random_input(arguments: dict, points: int, times: list[float], mask: str | None) -> dict[str, np.ndarray | None]:
    """Fields, lead times, and mask and labels where there are some."""
    stream = np.random.RandomState(1)
    shape = (len(times), arguments["out_channels"], points, points)
    x = stream.standard_normal((len(times), arguments["in_channels"], points, points)).astype(np.float32)
    labels = stream.standard_normal(shape).astype(np.float32)
    masks = {"channels": stream.random_sample(shape[:2]) < 0.5, "points": stream.random_sample(shape) < 0.5}
    return {
        "x": x,
        "time": np.array(times, dtype=np.float32),
        "pixel_mask": masks[mask] if mask else None,
        "labels": labels if mask else None,
    }


def main() -> None:
    import torch
    from scOT.model import ScOT, ScOTConfig

    def tensor(array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array)

    arrays = {}
    for name, (changes, points, times, mask, thinning) in CASES.items():
        arguments = SMALL | changes
        peer = {key: value for key, value in arguments.items() if key not in ("in_channels", "out_channels")}
        config = ScOTConfig(
            num_channels=arguments["in_channels"],
            num_out_channels=arguments["out_channels"],
            drop_path_rate=0.0,
            **peer,
        )
        model = ScOT(config).eval()
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in random_state(shapes).items()})
        given = random_input(arguments, points, times, mask)
        with torch.no_grad():
            output = model(
                tensor(given["x"]),
                tensor(given["time"]),
                pixel_mask=tensor(given["pixel_mask"]),
                labels=tensor(given["labels"]),
            ).output
        assert torch.isfinite(output).all(), name
        print(name, sum(p.numel() for p in model.parameters()), float(output.std()))
        arrays[f"{name}/output"] = output[..., ::thinning, ::thinning].numpy()
        if name == "poseidon_t":
            arrays[f"{name}/shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(Path(__file__).with_name("scot_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
