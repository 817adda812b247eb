"""A prepared model on OpenVINO, in float32 and int8 the fastest runtime that was measured on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from timesformer.model.base import FrozenModel
from timesformer.model.graph import FeaturesAndLogits, trace
from timesformer.model.timesformer import TimeSformer

if TYPE_CHECKING:
    from timesformer.model.inference import Dtype

_INSTALL = "pip install 'timesformer[openvino]'"


class OnOpenVINO(FrozenModel):
    """What `timesformer.prepare` returns for the backend `openvino`: for clips of the model's own size, any batch."""

    architecture = "timesformer"

    def __init__(self, model: TimeSformer, dtype: Dtype, calibration: list[Tensor]) -> None:
        super().__init__(model)
        try:
            import openvino
        except ImportError as error:
            raise ImportError(f"backend='openvino' is not installed: {_INSTALL}") from error
        config = model.config
        shape = (config.in_channels, config.num_frames, *config.frame_size)
        graph = openvino.convert_model(trace(FeaturesAndLogits(model), shape[1:]))
        if dtype == "int8":
            graph = _quantised(graph, calibration)
        precision = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}[dtype]
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._compiled = openvino.compile_model(graph, "CPU", options)
        self._shape = shape

    def _run(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        if clip.ndim != 5 or clip.shape[1:] != self._shape:
            sizes = ", ".join(map(str, self._shape))
            raise ValueError(f"clip of shape {tuple(clip.shape)}: a model on OpenVINO takes (B, {sizes})")
        features, logits = self._compiled([clip.float().contiguous().numpy()]).values()
        return torch.from_numpy(features.copy()), torch.from_numpy(logits.copy())

    def forward(self, clip: Tensor) -> Tensor:
        return self._run(clip)[1]

    def features(self, clip: Tensor) -> Tensor:
        return self._run(clip)[0]


def _quantised(graph: object, clips: list[Tensor]) -> object:
    try:
        import nncf
    except ImportError as error:
        raise ImportError(f"dtype='int8' on OpenVINO is not installed: {_INSTALL}") from error
    data = nncf.Dataset([clip.float().contiguous().numpy() for clip in clips])
    return nncf.quantize(
        graph, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED, subset_size=len(clips)
    )
