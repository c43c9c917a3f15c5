"""``southwell-predict``: apply a trained operator to fields in a file, or to a split of a dataset.

southwell-predict checkpoint=runs/tfno/best.pt input=a.npy output=u.npy
southwell-predict checkpoint=runs/fno/best.pt input=data/burgers split=test steps=20 output=u.npz
"""

from typing import Any

from datagen.commands.cli import run


def predict_command(config: dict[str, Any]) -> None:
    """Plain configuration in, predicted fields out; see ``configs/predict.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from operators.predict_files import check_paths, predict_file

    source, output = check_paths(config["input"], config["output"])
    from operators.predict import load

    done = predict_file(
        load(config["checkpoint"], config["device"]),
        source,
        output,
        split=config["split"],
        steps=config["steps"],
        lead_time=config["lead_time"],
        direct=config["direct"],
        batch_size=config["batch_size"],
    )
    print(f"{output}: {done}")


def main() -> None:
    """Console entry point."""
    run(predict_command, "predict")


if __name__ == "__main__":
    main()
