"""Make fno_golden.npz: outputs of neuraloperator 2.0.0's FNO on random weights, to compare ours with.

    pip install --no-deps --target /tmp/peer neuraloperator==2.0.0 tensorly==0.10.0 tensorly-torch==0.5.0 \
        opt_einsum==3.4.0 requests urllib3 idna certifi charset_normalizer
    PYTHONPATH=/tmp/peer python tests/operators/golden/make_fno_golden.py

Every case stores the peer's arguments, the names and shapes of its state dict (JSON; complex numbers as a last axis of
length 2), all its numbers in that order, the input and the output. Grids are even on leading axes: on odd ones the
peer's 2.0.0 shifts the spectrum by one wavenumber.
"""

import json
from pathlib import Path

import numpy as np
import torch

CASES = {
    "dense_1d": ((16,), {"n_modes": [6]}),
    "dense_2d": ((12, 10), {"n_modes": [6, 4]}),
    "tucker_2d": ((12, 10), {"n_modes": [6, 4], "factorization": "tucker", "rank": 0.4}),
    "tucker_3d": ((8, 6, 7), {"n_modes": [4, 3, 4], "factorization": "tucker", "rank": 0.3}),
    "coarse_2d": ((4, 4), {"n_modes": [6, 6]}),
    "nyquist_2d": ((6, 6), {"n_modes": [6, 6]}),
    "padded_2d": ((10, 12), {"n_modes": [4, 4], "domain_padding": 0.2}),
    "no_grid_2d": ((8, 9), {"n_modes": [4, 4], "positional_embedding": None, "fno_skip": "soft-gating"}),
}


def main() -> None:
    from neuralop.models import FNO

    arrays = {}
    torch.manual_seed(0)
    for name, (grid, arguments) in CASES.items():
        arguments |= {"in_channels": 2, "out_channels": 3, "hidden_channels": 4, "n_layers": 2}
        model = FNO(**arguments, implementation="factorized")
        x = torch.randn(2, 2, *grid)
        with torch.no_grad():
            y = model(x)
        arrays[f"{name}/arguments"] = np.array(json.dumps(arguments))
        arrays[f"{name}/input"], arrays[f"{name}/output"] = x.numpy(), y.numpy()
        state = {key: value.detach() for key, value in model.state_dict().items() if key != "_metadata"}
        shapes = {key: [*value.shape, 2] if value.is_complex() else [*value.shape] for key, value in state.items()}
        parts = [torch.view_as_real(v.resolve_conj()) if v.is_complex() else v for v in state.values()]
        arrays[f"{name}/shapes"] = np.array(json.dumps(shapes))
        arrays[f"{name}/state"] = torch.cat([part.flatten() for part in parts]).numpy()
    np.savez_compressed(Path(__file__).with_name("fno_golden.npz"), **arrays)


if __name__ == "__main__":
    main()
