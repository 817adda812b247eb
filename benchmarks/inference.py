"""Inference against Hugging Face's TimeSformer and the machine's limit: base model, divided attention.

Peers: Hugging Face's TimeSformer, eager, by torch.compile, and on OpenVINO; all with the same weights. The limit is the
matrix products and attention that the prepared model does, at its own shapes, and nothing else. Everything that is
compared runs in turn in this process. Needs the extra `dev`.

    python benchmarks/inference.py [--frames 8] [--size 224] [--batch 1] [--dtype float32 bfloat16 int8]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import openvino
import torch
from machine import interleaved, write_result
from peer import Logits, hugging_face
from torch import Tensor, nn

import timesformer
from timesformer.model.attention import attend
from timesformer.model.inference import Prepared
from timesformer.model.locality import attend_over_time, frame_parts, place_parts, row_parts

NAMES = {"float32": "f32", "bfloat16": "bf16"}


def on_openvino(peer: Logits, clip: Tensor, dtype: str) -> Callable[[], Any]:
    with torch.no_grad():
        graph = openvino.convert_model(torch.export.export(peer, (clip,)))
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": NAMES[dtype]}
    compiled = openvino.compile_model(graph, "CPU", options)
    array = clip.numpy()
    return lambda: compiled([array])


def products(prepared: Prepared, clip: Tensor) -> Callable[[], None]:
    """The prepared model's matrix products and attention alone, on numbers of the same shapes."""
    config, dtype, b = prepared.config, prepared.dtype, len(clip)
    grid, dim, heads = config.grid, config.embed_dim, config.num_heads
    t, n = grid["t"], grid["h"] * grid["w"]
    tokens = torch.randn(b * t, 1 + n, dim, dtype=dtype)
    pixels = torch.randn(b * t * n, 3 * config.patch_size**2, dtype=dtype)
    # In the layers that the model got: oneDNN packs bfloat16 only for processors that compute in it.
    kind = type(prepared.last.fc1)
    embed = kind(torch.randn(dim, pixels.shape[1], dtype=dtype), torch.zeros(dim, dtype=dtype))

    def attention(step: Any) -> Iterator[Callable[[], Any]]:
        over_space = step.moves_cls(step.neighbourhood)
        for part in frame_parts(tokens) if over_space else place_parts(tokens, t):
            some = tokens[part].contiguous()
            yield from (lambda layer=layer, some=some: layer(some) for layer in (step.q, step.k, step.v, step.out))
            if over_space:
                yield lambda some=some: attend(some, some, some, heads)
            else:
                yield lambda some=some: attend_over_time(some, some, some, heads, t)

    def mlp(block: Any, rows: Tensor) -> Iterator[Callable[[], Any]]:
        for part in row_parts(rows):
            some = rows[part]
            hidden = torch.randn(len(some), int(dim * config.mlp_ratio), dtype=dtype)
            yield lambda some=some: block.fc1(some)
            yield lambda hidden=hidden: block.fc2(hidden)

    jobs = [job for block in prepared.blocks for step in block.steps for job in attention(step)]
    jobs += [job for block in prepared.blocks for job in mlp(block, tokens.flatten(0, 1))]
    jobs += [job for step in prepared.last.steps for job in attention(step)]
    jobs += [lambda step=step: step(tokens, tokens[::t, 0], t) for step in prepared.last.attentions]
    jobs += list(mlp(prepared.last, tokens[::t, 0]))

    def run() -> None:
        embed(pixels)
        for job in jobs:
            job()

    return run


@torch.inference_mode()
def compare(frames: int, size: int, batch: int, dtypes: list[str], rounds: int, **options: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    # A copy made outside inference mode, so that it can be exported.
    with torch.inference_mode(False):
        model = timesformer.create_model("timesformer_base", num_frames=frames, image_size=size, **options).eval()
        for block in model.blocks:  # zero at first, which would hide the step over time
            nn.init.trunc_normal_(block.get_submodule("temporal_fc").weight, std=0.02)
        peer = Logits(hugging_face(model))
        clip = torch.randn(batch, 3, frames, size, size)
        jobs: dict[str, Callable[[], Any]] = {}
        limits = []
        for dtype in dtypes:
            if dtype == "int8":
                jobs["ours, int8"] = run(timesformer.prepare(model, "int8", calibration=[clip]), clip)
                fast = timesformer.prepare(model, "int8", backend="openvino", calibration=list(clip.split(1)))
                jobs["ours on OpenVINO, int8"] = run(fast, clip)
                continue
            kind = getattr(torch, dtype)
            cast = clip.to(kind)
            theirs = Logits(hugging_face(model)).to(kind)
            prepared = timesformer.prepare(model, dtype)  # type: ignore[arg-type]
            assert isinstance(prepared, Prepared)
            jobs[f"Hugging Face, {dtype}"] = run(theirs, cast)
            jobs[f"Hugging Face compiled, {dtype}"] = run(torch.compile(theirs), cast)
            jobs[f"Hugging Face on OpenVINO, {dtype}"] = on_openvino(peer, clip, dtype)
            jobs[f"plain, {dtype}"] = run(model if dtype == "float32" else _cast(model, kind), cast)
            jobs[f"ours, {dtype}"] = run(prepared, clip)
            fast = timesformer.prepare(model, dtype, backend="openvino")  # type: ignore[arg-type]
            jobs[f"ours on OpenVINO, {dtype}"] = run(fast, clip)
            jobs[f"limit, {dtype}"] = products(prepared, clip)
            limits.append(dtype)
    expected = model(clip)
    differences = {
        name: float((torch.as_tensor(logits) - expected).abs().max() / expected.abs().max())
        for name, job in jobs.items()
        if isinstance(logits := job(), Tensor)
    }
    seconds = interleaved(jobs, rounds=rounds, warm_up=0)  # all have run once for their differences
    best = {
        dtype: min(seconds[f"Hugging Face, {dtype}"], seconds[f"Hugging Face compiled, {dtype}"]) for dtype in limits
    }
    ratios = {}
    for dtype in limits:
        ratios[f"speed over Hugging Face's best in PyTorch, {dtype}"] = best[dtype] / seconds[f"ours, {dtype}"]
        on = min(seconds[f"ours, {dtype}"], seconds[f"ours on OpenVINO, {dtype}"])
        ratios[f"best backend's speed over Hugging Face's best in PyTorch, {dtype}"] = best[dtype] / on
        theirs = seconds[f"Hugging Face on OpenVINO, {dtype}"]
        ratios[f"best backend's speed over Hugging Face on OpenVINO, {dtype}"] = theirs / on
        ratios[f"time over the limit, {dtype}"] = seconds[f"ours, {dtype}"] / seconds[f"limit, {dtype}"]
        ratios[f"best backend's time over the limit, {dtype}"] = on / seconds[f"limit, {dtype}"]
    if "int8" in dtypes and "float32" in dtypes:
        for name in ("ours, int8", "ours on OpenVINO, int8"):
            ratios[f"{name}: speed over Hugging Face in float32"] = best["float32"] / seconds[name]
    return {
        "clip": f"{batch} x {frames} x {size} x {size}",
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "milliseconds": {name: round(1000 * value, 1) for name, value in seconds.items()},
        "largest difference of logits from the plain model's, relative": {
            name: float(f"{value:.2g}") for name, value in differences.items()
        },
    }


def _cast(model: timesformer.TimeSformer, kind: torch.dtype) -> nn.Module:
    import copy

    return copy.deepcopy(model).to(kind)


def run(model: nn.Module, clip: Tensor) -> Callable[[], Tensor]:
    return lambda: model(clip).float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found = compare(args.frames, args.size, args.batch, args.dtype, args.rounds)
    command = f"python benchmarks/inference.py --batch {args.batch} --frames {args.frames} --size {args.size}"
    write_result(f"inference_{args.batch}x{args.frames}x{args.size}", found, command)


if __name__ == "__main__":
    main()
