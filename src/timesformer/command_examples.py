"""An example of each command, which its help shows."""

EXAMPLES = {
    "demo": "timesformer demo --out runs/demo",
    "train": "timesformer train --data videos --out runs/mine --set steps=6000 data.flip=0",
    "evaluate": "timesformer evaluate runs/mine --data videos --out runs/mine/evaluation",
    "predict": "timesformer predict runs/mine new_videos --top 3 --out labels.csv",
    "explain": "timesformer explain runs/mine video.mp4 --out seen.mp4",
    "embed": "timesformer embed runs/mine videos --out features.safetensors",
    "map": "timesformer map features.safetensors --out map.html",
    "serve": "timesformer serve runs/mine --port 8000",
    "reproduce": "timesformer reproduce table1 --scale mini --out runs/reproduce",
    "convert": "timesformer convert runs/mine hub_folder --to huggingface",
    "push": "timesformer push runs/mine me/my-model --private",
    "export": "timesformer export runs/mine --to onnx --out model.onnx",
    "profile": "timesformer profile timesformer_base --frames 8 --no-measure",
    "schemes": "timesformer schemes --out schemes.png",
    "pack": "timesformer pack videos --out shards --short-side 256",
    "check": "timesformer check videos --min-frames 8",
}
