"""Why a target is missed, as the profiles of onnxruntime show it. docs/benchmarks.md has these where it is missed."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["REASONS"]

_UPDATE = (
    "Adam is twelve operators for each large parameter, tile by tile (a Scan) from a million elements on; TensorFlow's "
    "are as many, onnxruntime-training has one kernel for all parameters."
)

REASONS: Mapping[str, str] = {
    "small": (
        "About seventy nodes of 0.25 microseconds each: 11 update all parameters at once, 10 join and part them, 9 "
        "make the rate of the step, and 20 count the batch and average the loss. To pass 17 tensors and call Python "
        "take a third of the step. LiteRT and onnxruntime-training have one kernel for the loss and one for Adam."
    ),
    "mlp": _UPDATE,
    "cnn": (
        "Half of the step is the second convolution in three directions, each at the speed of a matrix product. The "
        "gradient of max pooling is ten operators that each pass over the images (Resize, Equal, Cast, Mul, MaxPool), "
        "where TensorFlow has one kernel; slices for the gradient of the filter have to be copied; and Conv, MaxPool "
        "and Resize of onnxruntime take longer than TensorFlow's oneDNN."
    ),
    "resnet50": _UPDATE + " Of the rest, products over the taps (Gemm, MatMul) take most.",
    "mobilenetv2": (
        "Depthwise convolutions of 16x16 positions and more, which onnxruntime's Conv takes channel by channel, and "
        "batch normalisation, whose statistics and gradient read each image ten times: neither is arithmetic enough to "
        "hide the passes over memory."
    ),
    "efficientnetb0": "As MobileNetV2, and swish, whose gradient is several passes, and the random bits of dropout.",
    "lstm": (
        "A time step is a product of 32 by 64 with 64 by 256 and a dozen element-wise operators: too little for two "
        "threads to share. PyTorch has one kernel for the whole layer."
    ),
    "transformer": (
        "Products of matrices take half of the step. LayerNormalization and its gradient are traced as single "
        "operators. Adam moves every row of the table of 5000 tokens, though its gradient has 512. " + _UPDATE
    ),
    "bert_tiny": "The table of 30522 tokens takes a third of the step: Adam moves every row, though its gradient has "
    "512. " + _UPDATE,
}
