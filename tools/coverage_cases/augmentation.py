"""The layers that change images at random or by their histogram, on values from 0 to 255."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    "RandAugment of one": lambda: L.RandAugment(num_ops=1, factor=0.3, seed=1),
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
    "Resizing area": lambda: L.Resizing(5, 7, interpolation="area"),
    "Solarization": lambda: L.Solarization(threshold_factor=0.5, seed=1),
    # options
    "RandomBrightness of floats": lambda: L.RandomBrightness((-0.5, 0.1), value_range=(0.0, 1.0), seed=1),
    "RandomColorJitter of all": lambda: L.RandomColorJitter((0, 255), 0.2, 0.2, 0.3, 0.1, seed=1),
    "RandomCrop of small images": lambda: L.RandomCrop(10, 9, seed=1),
    "RandomElasticTransform nearest": lambda: L.RandomElasticTransform(1.0, 1.0, "nearest", "wrap", seed=1),
    "RandomErasing of a value": lambda: L.RandomErasing(1.0, (0.1, 0.5), fill_value=3.0, seed=1),
    "RandomFlip vertical": lambda: L.RandomFlip("vertical", seed=1),
    "RandomGaussianBlur of rectangles": lambda: L.RandomGaussianBlur(1.0, (5, 3), (0.5, 2.0), seed=1),
    "RandomPerspective nearest": lambda: L.RandomPerspective(1.0, 0.5, "nearest", 2.0, seed=1),
    **{
        f"RandomRotation {mode}": partial(L.RandomRotation, 0.3, mode, fill_value=2.0, seed=1)
        for mode in ("constant", "nearest", "wrap")
    },
    "RandomShear nearest": lambda: L.RandomShear(0.3, 0.2, "nearest", "constant", 2.0, seed=1),
    "RandomTranslation of pixels": lambda: L.RandomTranslation((-0.3, 0.1), 0.2, "wrap", "nearest", seed=1),
    "RandomZoom of each axis": lambda: L.RandomZoom((-0.3, 0.1), (0.1, 0.3), "nearest", seed=1),
}
_CHANNELS_FIRST: dict[str, Callable[..., Any]] = {
    "CutMix": L.CutMix,
    "RandomCrop": partial(L.RandomCrop, 5, 4),
    "RandomElasticTransform": L.RandomElasticTransform,
    "RandomErasing": L.RandomErasing,
    "RandomFlip": L.RandomFlip,
    "RandomGrayscale": L.RandomGrayscale,
    "RandomRotation": partial(L.RandomRotation, 0.1),
    "RandomZoom": partial(L.RandomZoom, 0.2),
}


def augmentation_cases() -> list[Case]:
    """Each one before a convolution."""
    inputs = {"x": uniform(1, 254)}
    models = {name: _augmented(make) for name, make in _AUGMENTATION.items()}
    for name, layer in _CHANNELS_FIRST.items():
        make = partial(layer, data_format="channels_first", seed=1)
        models[f"{name} channels first"] = _augmented(make, is_first=True)
    return [
        Case("augmentation", name, make, inputs=inputs, tracks=name.partition(" ")[0]) for name, make in models.items()
    ]


def _augmented(make: Make, *, is_first: bool = False) -> Make:
    """The layer on the images themselves, as models have it, with a convolution after it."""

    def model() -> Any:
        x = keras.Input((3, 8, 8) if is_first else (8, 8, 3), name="x")
        h = make()(x)
        after = L.Conv2D(2, 3, data_format="channels_first" if is_first else "channels_last", name="after")
        return keras.Model(x, after(L.Rescaling(1 / 255)(h)), name="model")

    return model
