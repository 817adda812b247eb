"""What a model costs on paper and on this machine: `timesformer profile`."""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from timesformer import models
from timesformer.files import PICTURES, save_figure
from timesformer.model.attention import SCHEMES
from timesformer.model.base import VideoConfig, VideoModel
from timesformer.model.costs import count_macs, count_parameters
from timesformer.model.timesformer import ModelConfig
from timesformer.outputs import check_output

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Measurement:
    """One forward pass over one clip, on this machine.

    Attributes:
        device: what computed.
        threads: of PyTorch, on a CPU.
        dtype: of weights and computation.
        seconds: median over passes.
        peak_memory_bytes: the most that was held at a time, weights among it.
    """

    device: str
    threads: int
    dtype: str
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Profile:
    """The cost of a model on clips of its own size.

    Attributes:
        architecture, config: the model.
        parameters: their number.
        macs_per_view: multiply-accumulates of a forward pass over one clip.
        activation_bytes: what such a pass keeps for the backward pass, in float32, weights aside.
        parameters_by_part, macs_by_part: see `timesformer.model.costs`; of baselines, parameters of their modules.
        measured: time and memory here, if they were measured.
    """

    architecture: str
    config: VideoConfig
    parameters: int
    macs_per_view: int
    activation_bytes: int
    parameters_by_part: dict[str, int]
    macs_by_part: dict[str, int]
    measured: Measurement | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it, for JSON: `parameters`, `macs_per_view` and what else is known."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The table, for people."""
        config = self.config
        height, width = config.frame_size
        of = f"{config.attention}, patch {config.patch_size}" if isinstance(config, ModelConfig) else self.architecture
        lines = [
            f"{of}: {config.num_frames} frames of {height}x{width} px",
            f"{'part':<14}{'parameters':>14}{'MACs a view':>20}",
        ]
        for part in self.parameters_by_part:
            macs = f"{self.macs_by_part.get(part, 0):,}" if self.macs_by_part else ""
            lines.append(f"{part:<14}{self.parameters_by_part[part]:>14,}{macs:>20}".rstrip())
        lines += [
            f"{'all':<14}{self.parameters:>14,}{self.macs_per_view:>20,}",
            f"{self.macs_per_view / 1e12:.3f} T MACs a view, {3 * self.macs_per_view / 1e12:.3f} T for 3 views",
            f"{self.activation_bytes / 2**20:,.0f} MiB of activations a clip in training (float32)",
        ]
        if self.measured:
            here = self.measured
            lines.append(
                f"{1000 * here.seconds:,.0f} ms a clip and at most {here.peak_memory_bytes / 2**20:,.0f} MiB "
                f"here ({here.device}, {here.threads} threads, {here.dtype})"
            )
        return lines


def profile(model: VideoModel, *, measure: bool = True, dtype: Dtype = "float32", repeats: int = 5) -> Profile:
    """Count and, in a process of its own, measure what a model costs.

    Args:
        model: its weights are of no matter, and may be on the device `meta`; the clips are of its own size.
        measure: whether to run it.
        dtype: to measure in.
        repeats: passes to take the median of, after one to warm up.

    Raises:
        MemoryError: the measuring process was killed, most likely for want of memory.
    """
    config = model.config
    if isinstance(config, ModelConfig):
        parts, macs_by_part = count_parameters(config), count_macs(config)
    else:
        parts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
        parts, macs_by_part = {name: number for name, number in parts.items() if number}, {}
    parameters, macs = count(model)
    measured = _in_own_process(model, dtype, repeats) if measure else None
    return Profile(
        model.architecture, config, parameters, macs, count_activations(model), parts, macs_by_part, measured
    )


def count(model: VideoModel, image_size: int | None = None) -> tuple[int, int]:
    """Parameters of a model, and its multiply-accumulates for a clip; of frames of another size, if one is given."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    config = model.config
    if isinstance(config, ModelConfig):
        config = config.replace(image_size=image_size or config.image_size)
        return parameters, sum(count_macs(config).values())
    height, width = (image_size, image_size) if image_size else config.frame_size
    model = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, config.in_channels, config.num_frames, height, width, device="meta"))
    return parameters, counter.get_total_flops() // 2


def count_activations(model: VideoModel) -> int:
    """Bytes that a forward pass over one clip keeps for the backward pass, in float32; nothing is computed for it."""
    config = model.config
    model = copy.deepcopy(model).to("meta").train()
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    if isinstance(config, ModelConfig):
        for _, step in config.steps:
            step.comparisons(config.grid)  # puts its table of indices, if any, into the cache: a real one, not a fake
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model.to_empty(device="cpu")
        loss = model(torch.empty(1, config.in_channels, config.num_frames, *config.frame_size)).sum()
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        sizes = [tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights]
        del loss
    return sum(sizes)


def _in_own_process(model: VideoModel, dtype: Dtype, repeats: int) -> Measurement:
    # A process of its own: the peak of its memory is that of this model alone.
    job = json.dumps([model.architecture, asdict(model.config), dtype, repeats])
    command = [sys.executable, "-m", "timesformer.profiling", job]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return Measurement(**json.loads(done.stdout.splitlines()[-1]))
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode < 0 or "alloc" in last or "memory" in last:
        raise MemoryError(f"this machine has not enough memory for such a clip ({last or 'the process was killed'})")
    raise RuntimeError(f"the model can't be measured: {last}")


@torch.inference_mode()
def measure_forward(
    architecture: str, config: Mapping[str, Any], dtype: Dtype = "float32", repeats: int = 5
) -> Measurement:
    """Time and peak memory of a forward pass over one clip; memory as that of the whole process on a CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = 0 if device.type == "cuda" else _peak_of_process()
    model = models.build(architecture, config).eval().to(device, getattr(torch, dtype))
    of = model.config
    clip = torch.randn(1, of.in_channels, of.num_frames, *of.frame_size).to(device, getattr(torch, dtype))
    seconds = [seconds_of(model, clip) for _ in range(1 + repeats)]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_of_process() - before
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return Measurement(name, torch.get_num_threads(), dtype, statistics.median(seconds[1:]), peak)


def seconds_of(model: VideoModel, clip: Tensor) -> float:
    """Seconds of one forward pass, to its end on a GPU too."""
    started = time.perf_counter()
    model(clip)
    if clip.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _peak_of_process() -> int:
    """The most memory, in bytes, that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where a new process's ru_maxrss starts at that of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def sweep(config: ModelConfig, option: Literal["frames", "size"], values: Sequence[int]) -> list[dict[str, Any]]:
    """MACs a view of every scheme over clips of several lengths or sizes, as in Figure 3: a row each."""
    field = {"frames": "num_frames", "size": "image_size"}[option]
    rows = []
    for scheme in SCHEMES:
        for value in values:
            changed = config.replace(attention=scheme, order="time_space", **{field: value})
            rows.append({"attention": scheme, option: value, "macs_per_view": sum(count_macs(changed).values())})
    return rows


def draw_sweep(rows: Sequence[dict[str, Any]], option: Literal["frames", "size"], file: Path) -> None:
    """Draw the rows of `sweep` as curves. Raises ValueError for another suffix than `PICTURES`."""
    check_output(file, "out", suffixes=PICTURES)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for scheme in SCHEMES:
        points = [(row[option], row["macs_per_view"] / 1e12) for row in rows if row["attention"] == scheme]
        axes.plot(*zip(*points, strict=True), marker="o", label=scheme)
    axes.set_xticks(sorted({row[option] for row in rows}))
    axes.set_xlabel({"frames": "frames of a clip", "size": "side of a frame (px)"}[option])
    axes.set_ylabel("multiply-accumulates a view (T)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(file, figure)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_forward(*json.loads(sys.argv[1])))))
