"""The attention schemes against joint attention on long clips: time and peak memory of a forward pass.

Base model, 32 frames of 224 px, float32, one clip. Ratios below 1: faster, or smaller, than joint attention.
"""

from __future__ import annotations

import torch
from machine import interleaved, write_result

from timesformer.model.attention import SCHEMES
from timesformer.model.timesformer import TimeSformer
from timesformer.model.variants import VARIANTS
from timesformer.profiling import profile

FRAMES, DEPTH = 32, 2  # blocks are all alike; two of them keep a round short


@torch.inference_mode()
def main() -> None:
    base = VARIANTS["timesformer_base"].replace(num_frames=FRAMES)
    clip = torch.randn(1, 3, FRAMES, 224, 224)
    models = {scheme: TimeSformer(base.replace(attention=scheme, depth=DEPTH)).eval() for scheme in SCHEMES}
    jobs = {scheme: (lambda model=model: model(clip)) for scheme, model in models.items()}
    seconds = interleaved(jobs, rounds=5, warm_up=1)
    whole = {scheme: profile(TimeSformer(base.replace(attention=scheme)), repeats=1) for scheme in SCHEMES}
    peaks = {scheme: found.measured.peak_memory_bytes for scheme, found in whole.items() if found.measured}
    joint = "joint_space_time"
    write_result(
        "schemes",
        {
            "clip": f"1 x {FRAMES} x 224 x 224, base model, float32, forward; time of {DEPTH} blocks, memory of 12",
            "time_over_joint": {scheme: round(seconds[scheme] / seconds[joint], 3) for scheme in SCHEMES},
            "macs_over_joint": {
                scheme: round(whole[scheme].macs_per_view / whole[joint].macs_per_view, 3) for scheme in SCHEMES
            },
            "peak_memory_over_joint": {scheme: round(peaks[scheme] / peaks[joint], 3) for scheme in SCHEMES},
            "peak_memory_mib": {scheme: round(peak / 2**20) for scheme, peak in peaks.items()},
        },
    )


if __name__ == "__main__":
    main()
