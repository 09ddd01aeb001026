"""One small model of each family of keras.applications, without weights, at 64x64 or its smallest sane size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tools.coverage_cases.case import Case

__all__ = ["FAMILIES", "application_cases"]

FAMILIES: dict[str, tuple[str, int]] = {
    "mobilenet": ("MobileNet", 64),
    "mobilenet_v2": ("MobileNetV2", 64),
    "mobilenet_v3": ("MobileNetV3Small", 64),
    "vgg16": ("VGG16", 64),
    "resnet": ("ResNet50", 64),
    "resnet_v2": ("ResNet50V2", 64),
    "efficientnet": ("EfficientNetB0", 64),
    "efficientnet_v2": ("EfficientNetV2B0", 64),
    "convnext": ("ConvNeXtTiny", 64),
    "xception": ("Xception", 71),
    "inception_v3": ("InceptionV3", 75),
    "densenet": ("DenseNet121", 64),
    "nasnet": ("NASNetMobile", 64),
    "vgg19": ("VGG19", 64),
    "inception_resnet_v2": ("InceptionResNetV2", 139),
}
"""The modules of keras.applications: the class to convert, and the width of its images."""


def application_cases() -> list[Case]:
    """A classification in ten classes."""
    loss = "sparse_categorical_crossentropy"
    return [
        Case("applications", name, _make(name, size), loss=loss, batch_size=8, tracks=module)
        for module, (name, size) in FAMILIES.items()
    ]


def _make(name: str, size: int) -> Callable[[], Any]:
    def make() -> Any:
        return getattr(keras.applications, name)(weights=None, classes=10, input_shape=(size, size, 3))

    return make
