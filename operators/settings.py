"""What the ``trainer`` group of a configuration may say, and what holds where it says nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from solvers.registry import as_annotated, fits, near_names

_CHOICES = {"precision": (32, "bf16", 16), "distributed": ("ddp", "fsdp")}
_AT_LEAST_ONE = ("epochs", "batch_size", "accumulate", "patience")
_NOT_NEGATIVE = ("loader_workers", "checkpoint_minutes", "max_minutes")


@dataclass(frozen=True)
class Settings:
    """Settings of the training loop.

    Parameters
    ----------
    epochs : int
        Passes through the training data.
    batch_size : int
        Samples of one optimizer step, over all ranks and all parts together.
    gradient_clip : float, optional
        Largest norm of the gradient; longer ones are shortened to it.
    device : str
        "auto" (a GPU where there is one), "cpu" or "cuda".
    precision : {32, "bf16", 16}
        Of the arithmetic inside the model; weights, normalisers and losses stay in 32 bits, and so do spectral layers.
    compile : bool
        Whether `torch.compile` compiles the model.
    accumulate : int
        A batch is computed in this many parts, whose gradients are added: the same step in less memory.
    ema : float, optional
        Decay of an exponential moving average of the weights, which is then what is validated and stored.
    patience : int, optional
        Stop after this many epochs without a better validation loss.
    max_minutes : float, optional
        Time that one call may take; the same call goes on where it stopped.
    checkpoint_minutes : float
        Time between states kept within an epoch; 0 keeps one after every step.
    loader_workers : int
        Processes that read batches ahead; 0 reads them in the loop. Of no effect on the result.
    distributed : {"ddp", "fsdp"}
        Under ``torchrun``: weights copied to every rank, or sharded over them.

    Raises
    ------
    ValueError
        If a value is not of its kind.

    Examples
    --------
    >>> Settings.of({"epochs": 3, "batch_size": 8}).gradient_clip
    1.0
    >>> Settings.of({"epoch": 3})
    Traceback (most recent call last):
        ...
    ValueError: trainer has no setting 'epoch'. Did you mean 'epochs'? Known: accumulate, batch_size, ...
    """

    epochs: int = 10
    batch_size: int = 16
    gradient_clip: float | None = 1.0
    device: str = "auto"
    precision: int | str = 32
    compile: bool = False
    accumulate: int = 1
    ema: float | None = None
    patience: int | None = None
    max_minutes: float | None = None
    checkpoint_minutes: float = 10.0
    loader_workers: int = 0
    distributed: str = "ddp"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if name in _AT_LEAST_ONE and value is not None and not (fits(value, int) and value >= 1):
                raise ValueError(f"trainer.{name} must be a whole number of at least 1, got {value!r}")
            if name in _CHOICES and value not in _CHOICES[name]:
                known = ", ".join(map(str, _CHOICES[name]))
                raise ValueError(f"trainer.{name} must be one of {known}, got {value!r}")
            if not fits(value, hint):
                kind = hint.__name__ if isinstance(hint, type) else str(hint)
                raise ValueError(f"trainer.{name} must be {kind}, got {value!r}")
            if name in _NOT_NEGATIVE and value is not None and not value >= 0:
                raise ValueError(f"trainer.{name} must not be negative, got {value!r}")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(
                f"trainer.gradient_clip must be a positive norm, or null for none, got {self.gradient_clip!r}"
            )
        if self.ema is not None and not 0.0 <= self.ema < 1.0:
            raise ValueError(
                f"trainer.ema must be a decay in [0, 1), such as 0.999, or null for none, got {self.ema!r}"
            )

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> "Settings":
        """Settings of a configuration's ``trainer`` group, which may leave some out."""
        hints = get_type_hints(cls)
        for name in group:
            if name not in hints:
                raise ValueError(f"trainer has no setting {name!r}. {near_names(name, [f.name for f in fields(cls)])}")
        return cls(**{k: as_annotated(v, hints[k]) if fits(v, hints[k]) else v for k, v in group.items()})
