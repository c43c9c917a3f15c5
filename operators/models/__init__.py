"""Neural operators by name: `models.build("tfno", n_modes=[16, 16], in_channels=1, ...)`.

A model is a `torch.nn.Module` that maps ``(batch, in_channels, *grid)`` to ``(batch, out_channels, *grid)`` and takes
`in_channels` and `out_channels` among its arguments. Other distributions add theirs through the entry-point group
``southwell.models``.
"""

from operators.models.dcdm import DCDM
from operators.models.fno import FNO, TFNO
from operators.models.interpolation_network import LearnedCycle
from operators.models.lsm import LSM
from operators.models.multigrid_fno import MultigridFNO
from operators.models.poseidon import poseidon
from operators.models.pretrained import pretrained
from operators.models.scot import ScOT
from operators.models.unet import UNet
from solvers.registry import Registry

models: Registry = Registry("model", group="southwell.models")
models.register("fno")(FNO)
models.register("tfno")(TFNO)
models.register("lsm")(LSM)
models.register("learned_multigrid")(LearnedCycle)
models.register("multigrid_fno")(MultigridFNO)
models.register("poseidon")(poseidon)
models.register("pretrained")(pretrained)
models.register("dcdm")(DCDM)
models.register("scot")(ScOT)
models.register("unet")(UNet)

__all__ = ["DCDM", "FNO", "LSM", "TFNO", "LearnedCycle", "MultigridFNO", "ScOT", "UNet", "models"]
