"""Label videos by a file of `timesformer export --to torch`, without timesformer: consume_torch.py MODEL.pt2 VIDEO…

One of `--to aoti` is used alike: `module = torch._inductor.aoti_load_package(file)`, texts: `module.get_metadata()`.
"""

import json
import sys

import av
import numpy as np
import torch

texts = {"classes": "", "preprocessing": "", "scores": ""}
module = torch.export.load(sys.argv[1], extra_files=texts).module()
about = {name: json.loads(text) for name, text in texts.items()}
how = about["preprocessing"]
for path in sys.argv[2:]:
    if len(sys.argv) > 3:
        print(path)
    with av.open(path) as video:
        frames = list(video.decode(video=0))
    n, count, stride = len(frames), how["num_frames"], how["stride"]
    if how["sampling"] == "segments":  # the middle frame of each of equal parts of the video
        edges = np.round(np.arange(count + 1) * ((n - 1) / count)).astype(int)
        indices = (edges[:-1] + edges[1:]) // 2
    elif count * stride < n:  # a clip in the middle of the video
        indices = int(n - count * stride) // 2 + (np.arange(count) * stride).astype(int)
    else:  # all of a short one
        indices = np.arange(count) * n // count
    width, height = how["scaled_width"], how["scaled_height"]
    if how["keep_aspect"]:
        scale = max(width / frames[0].width, height / frames[0].height)
        width, height = round(frames[0].width * scale), round(frames[0].height * scale)
    small = [
        frames[i].reformat(width, height, "rgb24", interpolation=how["interpolation"].upper()).to_ndarray()
        for i in indices
    ]
    top, left = (height - how["height"]) // 2, (width - how["width"]) // 2
    clip = torch.tensor(np.stack(small))[:, top : top + how["height"], left : left + how["width"]]
    clip = clip.flip(-1) if how["colour"] == "BGR" else clip
    clip = ((clip / 255 - torch.tensor(how["mean"])) / torch.tensor(how["std"])).permute(3, 0, 1, 2)[None]
    with torch.inference_mode():
        features, logits = module(clip)
    scores = logits[0].softmax(0) if about["scores"] == "softmax" else logits[0].sigmoid()
    for best in scores.argsort(descending=True)[:5].tolist():
        print(f"{scores[best]:.6f}  {about['classes'][best]}")
