"""``southwell-predict``: apply a trained operator to fields in a file.

southwell-predict checkpoint=runs/tfno/best.pt input=a.npy out=u.npy
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from datagen.commands.cli import run
from datagen.files import write_atomically


def predict_command(config: dict[str, Any]) -> None:
    """Plain configuration in, predicted fields out; see ``configs/predict.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from operators.predict import load

    source, out = Path(config["input"]), Path(config["out"])
    if not source.is_file():
        raise ValueError(f"input={source}: there is no such file")
    if out.suffix != ".npy":
        raise ValueError(f"out={out} must end in .npy")
    if out.exists() and out.resolve() == source.resolve():
        raise ValueError(f"out={out} is the input file; name another")
    if not out.resolve().parent.is_dir():
        raise ValueError(f"out={out}: its folder does not exist")
    predictor = load(config["checkpoint"], config["device"])
    try:
        fields = np.load(source, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"input={source} could not be read as a .npy array of numbers: {error}") from None
    if fields.ndim == len(predictor.grid) + 1 and len(predictor.inputs) == 1:
        fields = fields[:, np.newaxis]  # (samples, *grid), as a dataset's fields are read
    prediction = predictor.predict(fields)
    buffer = io.BytesIO()
    np.save(buffer, prediction, allow_pickle=False)
    write_atomically(out, buffer.getvalue())
    names = ", ".join(channel.name for channel in predictor.outputs)
    print(f"{out}: {names}, shape {prediction.shape}")


def main() -> None:
    """Console entry point."""
    run(predict_command, "predict")


if __name__ == "__main__":
    main()
