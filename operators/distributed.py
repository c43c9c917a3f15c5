r"""Training on several ranks, as ``torchrun`` starts them: every rank computes a share of each batch.

With ``W`` ranks and a batch of ``n`` samples, rank ``r`` has the samples ``S_r`` and the loss

.. math:: L_r = \frac{W}{n} \sum_{i \in S_r} \ell_i, \qquad \frac1W \sum_r \nabla L_r = \nabla \frac1n \sum_i \ell_i,

so the gradients that DDP and FSDP average are those of the whole batch, however it divides. One process is the case
``W = 1``, without communication.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from operators.devices import choose_device

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes
    ----------
    rank, size : int
    device : torch.device
        Where this rank computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This rank's samples of a batch; shares differ by one at most.

        Examples
        --------
        >>> [Ranks(rank, 2, torch.device("cpu")).share(torch.arange(5)).tolist() for rank in range(2)]
        [[0, 1, 2], [3, 4]]
        """
        return batch.tensor_split(self.size)[self.rank]

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """A dictionary of tensors (of one shape on all ranks) of every rank, in order."""
        if self.size == 1:
            return [state]
        states: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for name, value in state.items():
            values = [torch.empty_like(value, device=self.device) for _ in range(self.size)]
            dist.all_gather(values, value.to(self.device))
            for each, gathered in zip(states, values, strict=True):
                each[name] = gathered.cpu()
        return states

    def first_does(self, action: Callable[[], T]) -> T | None:
        """Let the first rank do something; where it fails, all stop.

        Raises
        ------
        RuntimeError
            On the other ranks, if it failed there; the first raises what it was.
        """
        result, error = None, None
        if self.first:
            try:
                result = action()
            except Exception as caught:
                error = caught
        failed = self.sum_(torch.tensor([float(error is not None)], device=self.device)).item()
        if error is not None:
            raise error
        if failed:
            raise RuntimeError("rank 0 stopped; its message says why")
        return result


# A group's destructor waits for its threads. Where an error ends a training, the last to hold the group can be a Python
# object that goes away with the frames, and a thread that then waits for Python is waited for in vain: runs whose loss
# was not finite were seen to hang, one in fifteen. Held here, groups live until Python ends.
_groups: list[Any] = []


@contextmanager
def started(device: str) -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, or this process alone, for the time of a training.

    Parameters
    ----------
    device : str
        "auto", "cpu" or "cuda"; each rank of a machine gets a GPU of its own.

    Raises
    ------
    ValueError
        If a GPU is asked for and there is none, or fewer than ranks on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(0, 1, choose_device(device))
        return
    local = int(os.environ["LOCAL_RANK"])
    chosen = choose_device(device)
    if chosen.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"trainer.device={device}: {torch.cuda.device_count()} GPUs cannot hold rank {local + 1} of this "
                "machine; start as many processes as there are GPUs (torchrun --nproc-per-node)"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    _groups.append(dist.group.WORLD)
    try:
        with warnings.catch_warnings():
            # Of no consequence here: how gradients of spectral weights lie in memory, and that a model's output is a
            # view (losses do not write to it).
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
            yield Ranks(dist.get_rank(), size, chosen)
    except RuntimeError as error:
        if "closed by peer" in str(error) or isinstance(error, dist.DistError):
            raise RuntimeError("another rank ended; its message says why") from error
        raise
    finally:
        dist.destroy_process_group()


def distribute(model: nn.Module, how: str, ranks: Ranks) -> None:
    """Prepare a model's layers in place for several ranks: common batch statistics, and for FSDP shards of its weights.

    Parameters
    ----------
    model : torch.nn.Module
    how : {"ddp", "fsdp"}
    ranks : Ranks
    """
    if ranks.size == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.__class__ = CommonBatchNorm  # same parameters and buffers, another forward
    if how == "fsdp":
        mesh = init_device_mesh(ranks.device.type, (ranks.size,))
        for module in reversed(list(model.modules())):  # inner blocks first: what is sharded is left alone further out
            for block in module if isinstance(module, nn.ModuleList) else ():
                fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=True)


def averaging(cost: nn.Module, how: str, ranks: Ranks) -> nn.Module:
    """The module whose backward pass leaves gradients averaged over ranks.

    Parameters
    ----------
    cost : torch.nn.Module
        Returns the loss, of a model that went through `distribute`.
    how : {"ddp", "fsdp"}
    ranks : Ranks
    """
    if ranks.size == 1 or how == "fsdp":
        return cost
    return DistributedDataParallel(cost)


@contextmanager
def keeping_gradients_local(cost: nn.Module, model: nn.Module) -> Iterator[None]:
    """Without communication of gradients: for all parts of a batch but the last.

    Parameters
    ----------
    cost : torch.nn.Module
        As `averaging` returns it.
    model : torch.nn.Module
        Within it.
    """
    if isinstance(cost, DistributedDataParallel):
        with cost.no_sync():
            yield
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)
    else:
        yield


class _SumOverRanks(torch.autograd.Function):
    """``y = sum_r x_r`` on every rank. The gradient of ``sum_r L_r`` to each ``x_r`` is ``sum_r dL_r / dy``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def _over_ranks(value: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(value)
    return total


class CommonBatchNorm(_BatchNorm):
    r"""Batch normalisation over the samples of all ranks, on any device and with shares of any size.

    .. math:: \mu = \frac1n \sum_r \sum_{i \in S_r} x_i, \qquad \sigma^2 = \frac1n \sum_r \sum_{i \in S_r} (x_i - \mu)^2

    (torch's ``SyncBatchNorm`` does the same on GPUs only.) Where `idle`, this rank's samples are not counted.
    """

    idle = False

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """As a batch norm of the concatenated batch would."""
        if not self.training:
            return super().forward(input)
        assert isinstance(self.num_batches_tracked, Tensor)
        assert isinstance(self.running_mean, Tensor)
        assert isinstance(self.running_var, Tensor)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        counted = 0.0 if self.idle else 1.0
        x = input.to(self.running_mean.dtype)  # not in half precision
        count = torch.full((1,), counted * x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
        dist.all_reduce(count)
        mean = _over_ranks(counted * x.sum(axes)) / count
        centred = x - mean.reshape(shape)
        variance = _over_ranks(counted * centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = self.momentum if self.momentum is not None else 1.0 / self.num_batches_tracked.item()
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * count / (count - 1.0).clamp_min(1.0), rate)
        output = centred * (variance + self.eps).rsqrt().reshape(shape)
        if self.affine:
            output = output * self.weight.reshape(shape) + self.bias.reshape(shape)
        return output.to(input.dtype)


_idle = False  # whether this rank's samples only fill a share that would be empty


def batch_mean(mean: Tensor, count: int) -> Tensor:
    """The mean over the samples that all ranks have of a batch, out of each rank's own; no gradient goes through it.

    Every rank must call it, as often as the others. A rank whose samples are not counted (`set_idle`) adds nothing.

    Parameters
    ----------
    mean : Tensor
        Over this rank's samples.
    count : int
        How many they are.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return mean.detach()
    counted = 0 if _idle else count
    counts = mean.new_full((1,), counted)
    total = torch.cat([counted * mean.detach().reshape(-1), counts])
    dist.all_reduce(total)
    return (total[:-1] / total[-1]).reshape(mean.shape)


def set_idle(model: nn.Module, idle: bool, ranks: Ranks) -> None:
    """Say whether this rank's samples only fill a share that would be empty.

    Batch norms and `batch_mean` then leave them out.

    Parameters
    ----------
    model : torch.nn.Module
    idle : bool
    ranks : Ranks
    """
    global _idle
    if ranks.size == 1:
        return
    _idle = idle
    for module in model.modules():
        if isinstance(module, CommonBatchNorm):
            module.idle = idle


def whole(state: Any) -> Any:
    """Tensors, and dictionaries and lists of them, with what FSDP shards gathered on the CPU.

    Every rank must call it.

    Parameters
    ----------
    state : tensor, mapping, sequence or plain value
    """
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(map(whole, state))
    return state.full_tensor().cpu() if isinstance(state, DTensor) else state


def load_weights(model: nn.Module, state: Mapping[str, Any], partly: bool = False) -> None:
    """Load whole tensors into a model that may be sharded.

    Parameters
    ----------
    model : torch.nn.Module
    state : mapping
        Its state dict.
    partly : bool
        Whether the model keeps what is not in it.
    """
    own = model.state_dict()
    model.load_state_dict({name: _like(own.get(name), value) for name, value in state.items()}, strict=not partly)


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state of whole tensors, whose parameters may be sharded.

    Parameters
    ----------
    optimizer : Optimizer
    state : mapping
        Its state dict.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sharded = {
        index: {name: _like(parameters[index], value) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": sharded})


def _like(pattern: Any, value: Any) -> Any:
    """A tensor sharded as a pattern is that has as many axes and entries along the first, which is what is sharded."""
    fits = isinstance(value, Tensor) and value.ndim == pattern.ndim and value.shape[:1] == pattern.shape[:1]
    if isinstance(pattern, DTensor) and fits:
        return distribute_tensor(value, pattern.device_mesh, pattern.placements)
    return value
