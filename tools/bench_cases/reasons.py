"""Why a target is missed, as the profiles of onnxruntime show it. docs/benchmarks.md has these where it is missed."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["REASONS"]

_UPDATE = (
    "Adam is twelve operators for each large parameter, each of which reads and writes whole tensors; TensorFlow's are "
    "as many and work in place, onnxruntime-training has one kernel for all."
)

REASONS: Mapping[str, str] = {
    "small": (
        "About seventy nodes of 0.25 microseconds each: 11 update all parameters at once, 10 join and part them, 9 "
        "make the rate of the step, and 20 count the batch and average the loss. To pass 17 tensors and call Python "
        "take a third of the step. LiteRT and onnxruntime-training have one kernel for the loss and one for Adam."
    ),
    "mlp": _UPDATE,
    "cnn": (
        "Convolutions take as long as TensorFlow's. The gradients of max pooling and Relu are many operators that each "
        "pass over the images (Slice, Equal, Where, Concat), where TensorFlow has one kernel, and the gradient of a "
        "filter is a product per tap of slices that have to be copied first."
    ),
    "resnet50": _UPDATE + " Of the rest, products over the taps (Gemm, MatMul) take most.",
    "mobilenetv2": (
        "Depthwise convolutions, their gradients and batch normalisation, which Keras traces as single operators: none "
        "is arithmetic enough to hide the passes over memory. The gradient of a depthwise filter has no ONNX operator "
        "and is a product and a sum for each tap."
    ),
    "efficientnetb0": (
        "As MobileNetV2, with filters of 5x5 too, of which each gradient is 25 products and sums, and with swish, "
        "whose gradient is several passes."
    ),
    "transformer": (
        "Products of matrices take half of the step. LayerNormalization and its gradient are traced as single "
        "operators. Adam moves every row of the table of 5000 tokens, though its gradient has 512. " + _UPDATE
    ),
    "bert_tiny": "The table of 30522 tokens takes a third of the step: Adam moves every row, though its gradient has "
    "512. " + _UPDATE,
}
