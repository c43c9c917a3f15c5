"""Make neuraloperator_<version>.npz and .pt: outputs of neuraloperator's FNO on random weights, to compare ours with.

    pip install --no-deps --target /tmp/peer neuraloperator==2.0.0 tensorly==0.10.0 tensorly-torch==0.5.0 \
        opt_einsum==3.4.0 requests urllib3 idna certifi charset_normalizer
    PYTHONPATH=/tmp/peer python tests/operators/golden/make_neuraloperator_golden.py

and again in another folder with neuraloperator==1.0.2 torch-harmonics==0.7.3. Every case stores the peer's arguments,
the names and shapes of its state dict (JSON; complex numbers as a last axis of length 2), all its numbers in that
order, the input and the output. Parameters are moved from their initial values, at which gates and norms do nothing.
Grids are even on leading axes: on odd ones both versions shift the spectrum by one wavenumber. The ``.pt`` is the state
dict of the first case, as torch.save writes it.
"""

import json
from pathlib import Path

import numpy as np
import torch

PLAIN = {"in_channels": 2, "out_channels": 3, "hidden_channels": 4, "n_layers": 2}
CASES = {
    "silu_2d": ((12, 10), {"n_modes": [6, 4], "non_linearity": "silu"}),
    "dense_1d": ((16,), {"n_modes": [6]}),
    "dense_2d": ((12, 10), {"n_modes": [6, 4]}),
    "dense_4d": ((4, 2, 4, 3), {"n_modes": [2, 2, 2, 2], "n_layers": 1}),
    "tucker_2d": ((12, 10), {"n_modes": [6, 4], "factorization": "tucker", "rank": 0.4}),
    "tucker_3d": ((8, 6, 7), {"n_modes": [4, 3, 4], "factorization": "tucker", "rank": 0.3}),
    "cp_1d": ((11,), {"n_modes": [5], "factorization": "CP", "rank": 0.5}),
    "cp_2d": ((12, 10), {"n_modes": [6, 4], "factorization": "CP", "rank": 0.4}),
    "tt_2d": ((12, 10), {"n_modes": [6, 4], "factorization": "TT", "rank": 0.4}),
    "tt_3d": ((8, 6, 7), {"n_modes": [4, 4, 4], "factorization": "TT", "rank": 0.3}),
    "separable_2d": ((12, 10), {"n_modes": [6, 4], "separable": True}),
    "separable_tucker_2d": ((12, 10), {"n_modes": [6, 4], "separable": True, "factorization": "tucker", "rank": 0.5}),
    "separable_cp_1d": ((12,), {"n_modes": [6], "separable": True, "factorization": "CP", "rank": 0.5}),
    "separable_tt_2d": ((12, 10), {"n_modes": [6, 4], "separable": True, "factorization": "TT", "rank": 0.5}),
    "coarse_2d": ((4, 4), {"n_modes": [6, 6]}),
    "nyquist_2d": ((6, 6), {"n_modes": [6, 6]}),
    "padded_2d": ((10, 12), {"n_modes": [4, 4], "domain_padding": 0.2}),
    "no_grid_2d": ((8, 9), {"n_modes": [4, 4], "positional_embedding": None, "fno_skip": "soft-gating"}),
    "linear_lifting_1d": ((12,), {"n_modes": [4], "lifting_channel_ratio": 0, "projection_channel_ratio": 1.5}),
    "skips_1d": ((12,), {"n_modes": [4], "fno_skip": "identity", "channel_mlp_skip": "linear"}),
    "no_skips_1d": ((12,), {"n_modes": [4], "fno_skip": None, "channel_mlp_skip": None}),
    "stabilised_1d": ((12,), {"n_modes": [4], "stabilizer": "tanh"}),
    "preactivated_1d": ((12,), {"n_modes": [4], "preactivation": True}),
    "preactivated_norm_1d": ((12,), {"n_modes": [4], "preactivation": True, "norm": "group_norm"}),
    "instance_norm_2d": ((8, 6), {"n_modes": [4, 4], "norm": "instance_norm"}),
    "group_norm_2d": ((8, 6), {"n_modes": [4, 4], "norm": "group_norm"}),
    "batch_norm_1d": ((12,), {"n_modes": [4], "norm": "batch_norm"}),
    "no_mlp_1d": ((12,), {"n_modes": [4], "use_channel_mlp": False, "norm": "group_norm"}),
}
OF_VERSION_1 = {"silu_2d", "dense_1d", "tucker_2d", "cp_2d", "tt_2d", "group_norm_2d"}


def main() -> None:
    import neuralop
    from neuralop.models import FNO

    arrays = {}
    place = Path(__file__).with_name(f"neuraloperator_{neuralop.__version__}.npz")
    torch.manual_seed(0)
    for name, (grid, chosen) in CASES.items():
        if neuralop.__version__.startswith("1.") and name not in OF_VERSION_1:
            continue
        arguments = {**PLAIN, **chosen}
        activation = getattr(torch.nn.functional, arguments.get("non_linearity", "gelu"))
        model = FNO(**{**arguments, "non_linearity": activation}, implementation="factorized")
        x = torch.randn(2, 2, *grid)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            model.train()(x)  # moves the averages of batch norm
            y = model.eval()(x)
        if not arrays:
            torch.save(model.state_dict(), place.with_suffix(".pt"))
        arrays[f"{name}/arguments"] = np.array(json.dumps(arguments))
        arrays[f"{name}/input"], arrays[f"{name}/output"] = x.numpy(), y.numpy()
        state = {key: value.detach() for key, value in model.state_dict().items() if key != "_metadata"}
        shapes = {key: [*value.shape, 2] if value.is_complex() else [*value.shape] for key, value in state.items()}
        parts = [torch.view_as_real(v.resolve_conj()) if v.is_complex() else v.float() for v in state.values()]
        arrays[f"{name}/shapes"] = np.array(json.dumps(shapes))
        arrays[f"{name}/state"] = torch.cat([part.flatten() for part in parts]).numpy()
    np.savez_compressed(place, **arrays)


if __name__ == "__main__":
    main()
