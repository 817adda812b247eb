"""How the processes of a run share its model and its steps, from outside of the model.

In every step all processes have as many turns, each a forward and backward pass: processes wait for one another within
a turn, so that one without a clip takes part with a blank. Gradients add up over the turns, and over the processes
once, in the last turn.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from timesformer.distributed import rank, world_size
from timesformer.model.base import VideoModel
from timesformer.model.timesformer import TimeSformer
from timesformer.training.checkpoint import WeightAverage
from timesformer.training.errors import TrainingError
from timesformer.training.optimizer import Optimizers
from timesformer.training.recipe import Recipe


class Alone:
    """One process; and what the loop asks of several.

    Attributes:
        model: the model, whose parameters are what the optimizer moves: all of them, or this process's shards.
        module: what clips go through in training.
    """

    def __init__(self, model: VideoModel) -> None:
        self.model = model
        self.module: nn.Module = model

    def turn(self, *, last: bool) -> AbstractContextManager[None]:
        """Where a turn is taken; gradients are summed over the processes in the last one of a step."""
        return nullcontext()

    def blank(self) -> None:
        """Take part in a turn without a clip."""

    def share_buffers(self) -> None:
        """Agree on what is no parameter but changes in training, after a step."""

    def whole(self, model: VideoModel) -> VideoModel:
        """A model, or the average of its weights, with all of them in this process; for all processes to call."""
        return model

    def gathered(self, states: dict[str, Any]) -> dict[str, Any]:
        """State dicts as one process has them, for process 0 to save; for all processes to call."""
        return states

    def load_optimizer(self, optimizer: Optimizers, states: list[dict[str, Any]]) -> None:
        """Set an optimizer to its part of gathered states, which may be of a file that goes away."""
        optimizer.load_state_dict(copy.deepcopy(states))


class Replicated(Alone):
    """Every process has the whole model (`DistributedDataParallel`).

    Batch norms of a convolutional baseline normalise by the clips of one micro-batch, as they do in one process that
    accumulates gradients; their running statistics are averaged over the processes after each step.
    """

    def __init__(self, model: VideoModel) -> None:
        super().__init__(model)
        self.module = DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.module.broadcast_buffers = False
        self.module.register_comm_hook(None, lambda _, bucket: _sum(bucket.buffer()))  # a sum, where DDP would average

    def turn(self, *, last: bool) -> AbstractContextManager[None]:
        assert isinstance(self.module, DistributedDataParallel)
        return nullcontext() if last else self.module.no_sync()

    def blank(self) -> None:
        _blank_turn(self.model, self.module)

    def share_buffers(self) -> None:
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world_size()
            else:  # how many batches a norm has seen
                dist.all_reduce(buffer, dist.ReduceOp.MAX)


class Sharded(Alone):
    """Every process has a shard of each parameter, of its gradient, its average and its optimizer's state (FSDP2)."""

    def __init__(self, model: VideoModel, average: WeightAverage | None) -> None:
        if not isinstance(model, TimeSformer):
            raise TrainingError(
                f"parallel=fsdp: only a Transformer's blocks are sharded, not those of {model.architecture}; "
                "take parallel=ddp"
            )
        super().__init__(model)
        self._shape = copy.deepcopy(model).to("meta")
        for each in (model, average.model) if average else (model,):
            assert isinstance(each, TimeSformer)
            _shard(each)

    def turn(self, *, last: bool) -> AbstractContextManager[None]:
        self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def blank(self) -> None:
        _blank_turn(self.model, self.module)

    def whole(self, model: VideoModel) -> VideoModel:
        whole = copy.deepcopy(self._shape)
        whole.load_state_dict({name: _whole(value) for name, value in model.state_dict().items()}, assign=True)
        return whole

    def gathered(self, states: dict[str, Any]) -> dict[str, Any]:
        gathered: dict[str, Any] = _gathered(states)
        return gathered

    def load_optimizer(self, optimizer: Optimizers, states: list[dict[str, Any]]) -> None:
        shares = []
        for part, state in zip(optimizer.parts, states, strict=True):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            values = {
                number: {name: _shard_as(parameters[number], value) for name, value in each.items()}
                for number, each in state["state"].items()
            }
            shares.append({**state, "state": values})
        optimizer.load_state_dict(shares)


def share(model: VideoModel, recipe: Recipe, average: WeightAverage | None = None) -> Alone:
    """Let the processes of a run share its model, and the average of its weights, as a recipe says.

    Raises:
        TrainingError: a model that can't be shared in that way.
    """
    if world_size() == 1:
        parallel = Alone(model)
    elif recipe.parallel == "ddp":
        parallel = Replicated(model)
    else:
        parallel = Sharded(model, average)
    if recipe.compile:
        # Blocks by themselves: they compile fast, and gradients leave one after the other, while others are computed.
        for part in model.blocks if isinstance(model, TimeSformer) else [model]:
            part.compile()
    return parallel


def _blank_turn(model: VideoModel, module: nn.Module) -> None:
    """A turn whose gradients are zero; in evaluation mode, so that no statistics of batch norms come of it."""
    config = model.config
    device = next(model.parameters()).device
    clip = torch.zeros(1, config.in_channels, config.num_frames, *config.frame_size, device=device)
    model.eval()
    (0 * module(clip).sum()).backward()
    model.train()


def _shard(model: TimeSformer) -> None:
    """Cut a model's parameters into shards, which become whole for the time that a block computes."""
    parameters = [*model.parameters()]
    for parameter in parameters:  # first weights are of a seed, but processors differ
        dist.broadcast(parameter.detach(), 0)
    mesh = init_device_mesh(parameters[0].device.type, (world_size(),))
    for part in (*model.blocks, model):
        sharded = fully_shard(part, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)  # gradients are summed, not averaged
        sharded.set_force_sum_reduction_for_comms(True)


def _sum(gradients: Tensor) -> torch.futures.Future[Tensor]:
    sums: torch.futures.Future[list[Tensor]] = dist.all_reduce(gradients, async_op=True).get_future()
    return sums.then(lambda future: future.value()[0])


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _shard_as(parameter: DTensor, value: Any) -> Any:
    """This process's shard, a copy, of what an optimizer keeps of a parameter; counts of steps stay as they are."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return copy.deepcopy(value)
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()


def _gathered(value: Any) -> Any:
    """A tree of states with whole tensors, on the CPU, in process 0; others only help, one tensor at a time."""
    if isinstance(value, dict):
        return {name: _gathered(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_gathered(each) for each in value]
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if rank() == 0 else None
    return value
