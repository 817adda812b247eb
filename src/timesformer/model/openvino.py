"""A prepared model on OpenVINO, in float32 and int8 the fastest runtime that was measured on a CPU."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
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
        if dtype != "float32":
            _end_in_product(graph.outputs[0])
        precision = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16"}[dtype]
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._compiled = openvino.compile_model(graph, "CPU", options)
        self._shape = shape

    def _run(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        self.config.require_clips(clip)
        if clip.shape[1:] != self._shape:
            sizes = ", ".join(map(str, self._shape))
            raise ValueError(f"clip of shape {tuple(clip.shape)}: a model on OpenVINO takes (B, {sizes})")
        features, logits = self._compiled([clip.float().contiguous().numpy()]).values()
        return torch.from_numpy(features.copy()), torch.from_numpy(logits.copy())

    def forward(self, clip: Tensor) -> Tensor:
        return self._run(clip)[1]

    def features(self, clip: Tensor) -> Tensor:
        return self._run(clip)[0]


def _end_in_product(output: Any) -> None:
    """Put a product with the identity before an output of a graph.

    OpenVINO keeps in float32 what lies between the last matrix products and an output: without it, as there is a sum
    past each product, that is each residual sum of the model.
    """
    from openvino import opset15 as ops

    (source,) = output.node.input_values()
    identity = np.eye(source.get_partial_shape()[-1].get_length(), dtype=np.float32)
    output.node.input(0).replace_source_output(ops.matmul(source, identity, False, False).output(0))


def _quantised(graph: object, clips: list[Tensor]) -> object:
    """The linear layers of the blocks in 8 bits.

    Others are few and lose much: pixels, and attention. Smoothing is off, as it makes things worse where the scales of
    norms are in the weights (benchmarks/agreement.py: 4 videos of a hundred).
    """
    with contextlib.redirect_stdout(sys.stderr):  # NNCF's progress, which is not what a command was asked for
        try:
            import nncf
            from nncf.quantization.range_estimator import RangeEstimatorParametersSet
        except ImportError as error:
            raise ImportError(f"dtype='int8' on OpenVINO is not installed: {_INSTALL}") from error
        logging.getLogger("nncf").setLevel(logging.WARNING)
        return nncf.quantize(
            graph,
            nncf.Dataset([clip.float().contiguous().numpy() for clip in clips]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(clips),
            ignored_scope=nncf.IgnoredScope(
                types=["Convolution", "ScaledDotProductAttention"], patterns=[".*bmm.*"], validate=False
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
