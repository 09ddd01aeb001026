"""The layers that change images at random or by their histogram, on values from 0 to 255."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tools.coverage_cases.case import Case, uniform

__all__ = ["augmentation_cases"]

L = keras.layers
Make = Callable[[], Any]

_AUGMENTATION: dict[str, Make] = {
    "AugMix": lambda: L.AugMix(seed=1),
    "AutoContrast": lambda: L.AutoContrast(),
    "ContrastLimitedAdaptiveHistogramEqualization": lambda: L.ContrastLimitedAdaptiveHistogramEqualization(
        tile_grid_size=(2, 2)
    ),
    "CutMix": lambda: L.CutMix(seed=1),
    "Equalization": lambda: L.Equalization(),
    "MixUp": lambda: L.MixUp(seed=1),
    "RandAugment": lambda: L.RandAugment(seed=1),
    "RandomBrightness": lambda: L.RandomBrightness(0.2, seed=1),
    "RandomColorDegeneration": lambda: L.RandomColorDegeneration(0.5, seed=1),
    "RandomColorJitter": lambda: L.RandomColorJitter(brightness_factor=0.2, contrast_factor=0.2, seed=1),
    "RandomContrast": lambda: L.RandomContrast(0.2, seed=1),
    "RandomCrop": lambda: L.RandomCrop(5, 4, seed=1),
    "RandomElasticTransform": lambda: L.RandomElasticTransform(seed=1),
    "RandomErasing": lambda: L.RandomErasing(seed=1),
    "RandomFlip": lambda: L.RandomFlip(seed=1),
    "RandomGaussianBlur": lambda: L.RandomGaussianBlur(seed=1),
    "RandomGrayscale": lambda: L.RandomGrayscale(0.5, seed=1),
    "RandomHue": lambda: L.RandomHue(0.2, seed=1),
    "RandomInvert": lambda: L.RandomInvert(0.5, seed=1),
    "RandomPerspective": lambda: L.RandomPerspective(seed=1),
    "RandomPosterization": lambda: L.RandomPosterization(4, seed=1),
    "RandomRotation": lambda: L.RandomRotation(0.1, seed=1),
    "RandomSaturation": lambda: L.RandomSaturation(0.5, seed=1),
    "RandomSharpness": lambda: L.RandomSharpness(0.5, seed=1),
    "RandomShear": lambda: L.RandomShear(0.2, 0.2, seed=1),
    "RandomTranslation": lambda: L.RandomTranslation(0.2, 0.2, seed=1),
    "RandomZoom": lambda: L.RandomZoom(0.2, seed=1),
    "Solarization": lambda: L.Solarization(threshold_factor=0.5, seed=1),
}


def augmentation_cases() -> list[Case]:
    """Each one before a convolution."""
    inputs = {"x": uniform(1, 254)}
    return [
        Case("augmentation", name, _augmented(make), inputs=inputs, tracks=name) for name, make in _AUGMENTATION.items()
    ]


def _augmented(make: Make) -> Make:
    """The layer on the images themselves, as models have it, with a convolution after it."""

    def model() -> Any:
        x = keras.Input((8, 8, 3), name="x")
        h = make()(x)
        return keras.Model(x, L.Conv2D(2, 3, name="after")(L.Rescaling(1 / 255)(h)), name="model")

    return model
