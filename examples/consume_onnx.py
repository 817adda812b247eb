"""Label videos by a file of `timesformer export --to onnx`, without timesformer: consume_onnx.py MODEL.onnx VIDEO…"""

import json
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
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
    clip = np.stack(small)[
        :, top : top + how["height"], left : left + how["width"], :: 1 if how["colour"] == "RGB" else -1
    ]
    clip = ((clip / 255 - how["mean"]) / how["std"]).astype(np.float32).transpose(3, 0, 1, 2)[None]
    (logits,) = session.run(["logits"], {"clip": clip})[0]
    exp = np.exp(logits - logits.max())
    scores = exp / exp.sum() if about["scores"] == "softmax" else 1 / (1 + np.exp(-logits))
    for best in np.argsort(-scores, kind="stable")[:5]:
        print(f"{scores[best]:.6f}  {about['classes'][best]}")
