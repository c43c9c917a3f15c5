"""``southwell-convert``: published weights to a checkpoint of ours.

southwell-convert source=neuraloperator input=fno_state_dict.pt output=fno.pt
"""

from pathlib import Path
from typing import Any

from datagen.commands.cli import run


def convert_command(config: dict[str, Any]) -> None:
    """Plain configuration in, a checkpoint out; see ``configs/convert.yaml`` for the keys."""
    # torch takes seconds to import, and --help or a misspelt key should not wait for it.
    from operators.convert import convert

    output = Path(config["output"])
    if not output.resolve().parent.is_dir():
        raise ValueError(f"output={output}: its folder does not exist")
    if output.exists():
        raise ValueError(f"output={output} exists already; name another, or delete it first")
    print(convert(config["source"], config["input"], output, config["arguments"] or {}))


def main() -> None:
    """Console entry point."""
    run(convert_command, "convert")


if __name__ == "__main__":
    main()
