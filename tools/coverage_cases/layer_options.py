"""The layers of `layers` again, with options that make other operations of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras

from tools.coverage_cases.case import Case, after_dense

__all__ = ["layer_option_cases"]

L = keras.layers
IMAGE, SIGNAL, VOLUME, ROWS = (8, 7, 4), (9, 4), (5, 6, 4, 2), (4, 6)
FIRST = "channels_first"
Make = Callable[[], Any]
Table = Mapping[str, tuple[tuple[int, ...], Make]]

_CONVOLUTIONS: Table = {
    "Conv1D channels first": (SIGNAL, lambda: L.Conv1D(3, 2, strides=2, padding="same", data_format=FIRST)),
    "Conv1D groups dilated": (SIGNAL, lambda: L.Conv1D(4, 3, groups=2, dilation_rate=3)),
    "Conv1D causal strided": (SIGNAL, lambda: L.Conv1D(3, 4, strides=2, padding="causal")),
    "Conv2D strides of two sizes": (IMAGE, lambda: L.Conv2D(4, (2, 3), strides=(3, 2), padding="same", use_bias=False)),
    "Conv2D larger than the image": ((3, 2, 4), lambda: L.Conv2D(4, 5, strides=2, padding="same")),
    "Conv2D pointwise strided": (IMAGE, lambda: L.Conv2D(4, 1, strides=2)),
    "Conv2D same dilated": (IMAGE, lambda: L.Conv2D(4, 3, padding="same", dilation_rate=(2, 3))),
    "Conv2D groups dilated": (IMAGE, lambda: L.Conv2D(6, 3, padding="same", groups=2, dilation_rate=2)),
    "Conv2D channels first groups": (
        (4, 8, 7),
        lambda: L.Conv2D(6, 3, strides=2, padding="same", groups=2, data_format=FIRST),
    ),
    "Conv2D channels first dilated": ((4, 8, 7), lambda: L.Conv2D(6, 3, dilation_rate=2, data_format=FIRST)),
    "Conv2D LoRA": (IMAGE, lambda: L.Conv2D(4, 3, lora_rank=2)),
    "Conv3D channels first": ((2, 5, 6, 4), lambda: L.Conv3D(3, 2, strides=2, padding="same", data_format=FIRST)),
    "Conv3D dilated": (VOLUME, lambda: L.Conv3D(3, 2, dilation_rate=(2, 1, 3))),
    "Conv3D groups": (VOLUME, lambda: L.Conv3D(4, 2, groups=2)),
    "Conv1DTranspose dilated": (SIGNAL, lambda: L.Conv1DTranspose(3, 3, dilation_rate=2)),
    "Conv1DTranspose channels first": (SIGNAL, lambda: L.Conv1DTranspose(3, 3, strides=3, data_format=FIRST)),
    "Conv2DTranspose dilated": (IMAGE, lambda: L.Conv2DTranspose(4, 3, dilation_rate=2, padding="same")),
    "Conv2DTranspose output padding": (
        IMAGE,
        lambda: L.Conv2DTranspose(4, 3, strides=(3, 2), padding="valid", output_padding=(2, 1)),
    ),
    "Conv2DTranspose larger strides": (IMAGE, lambda: L.Conv2DTranspose(4, 2, strides=3, padding="same")),
    "Conv2DTranspose channels first": (
        (4, 8, 7),
        lambda: L.Conv2DTranspose(3, 3, strides=2, padding="same", data_format=FIRST),
    ),
    "Conv3DTranspose same": (
        VOLUME,
        lambda: L.Conv3DTranspose(3, 3, strides=2, padding="same", output_padding=(1, 0, 1)),
    ),
    "DepthwiseConv1D dilated": (SIGNAL, lambda: L.DepthwiseConv1D(3, dilation_rate=2, padding="same")),
    "DepthwiseConv2D dilated": (IMAGE, lambda: L.DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2)),
    "DepthwiseConv2D channels first": ((4, 8, 7), lambda: L.DepthwiseConv2D(3, strides=2, data_format=FIRST)),
    "SeparableConv1D dilated": (SIGNAL, lambda: L.SeparableConv1D(3, 3, padding="same", dilation_rate=2)),
    "SeparableConv1D strided": (SIGNAL, lambda: L.SeparableConv1D(3, 3, padding="same", strides=2)),
    "SeparableConv2D strided": (IMAGE, lambda: L.SeparableConv2D(3, 3, strides=2, padding="same")),
    "SeparableConv2D dilated": (IMAGE, lambda: L.SeparableConv2D(3, 3, dilation_rate=2, padding="same")),
    "SeparableConv2D channels first": ((4, 8, 7), lambda: L.SeparableConv2D(3, 3, data_format=FIRST)),
}

_POOLING: Table = {
    "AveragePooling1D same": (SIGNAL, lambda: L.AveragePooling1D(4, strides=3, padding="same")),
    "AveragePooling2D channels first": ((4, 8, 7), lambda: L.AveragePooling2D(3, padding="same", data_format=FIRST)),
    "AveragePooling3D same": (VOLUME, lambda: L.AveragePooling3D(3, strides=2, padding="same")),
    "MaxPooling1D same": (SIGNAL, lambda: L.MaxPooling1D(4, strides=3, padding="same")),
    "MaxPooling2D larger strides": (IMAGE, lambda: L.MaxPooling2D(2, strides=3)),
    "MaxPooling2D channels first": ((4, 8, 7), lambda: L.MaxPooling2D(3, strides=2, data_format=FIRST)),
    "MaxPooling3D same": (VOLUME, lambda: L.MaxPooling3D(3, strides=2, padding="same")),
    "MaxPooling3D channels first": ((2, 5, 6, 4), lambda: L.MaxPooling3D(2, padding="same", data_format=FIRST)),
    "GlobalAveragePooling1D masked": (SIGNAL, lambda: _masked(L.GlobalAveragePooling1D())),
    "GlobalAveragePooling2D channels first": (
        (4, 8, 7),
        lambda: L.GlobalAveragePooling2D(data_format=FIRST, keepdims=True),
    ),
    "GlobalMaxPooling3D channels first": ((2, 5, 6, 4), lambda: L.GlobalMaxPooling3D(data_format=FIRST)),
    "AdaptiveAveragePooling2D channels first": (
        (4, 8, 7),
        lambda: L.AdaptiveAveragePooling2D((3, 2), data_format=FIRST),
    ),
    "AdaptiveMaxPooling2D channels first": ((4, 8, 7), lambda: L.AdaptiveMaxPooling2D((3, 2), data_format=FIRST)),
}

_NORMALISATION: Table = {
    "BatchNormalization channels first": ((4, 8, 7), lambda: L.BatchNormalization(axis=1)),
    "BatchNormalization without scale": (IMAGE, lambda: L.BatchNormalization(center=False, scale=False)),
    "BatchNormalization masked": (SIGNAL, lambda: _masked(L.BatchNormalization())),
    "BatchNormalization renorm": (
        IMAGE,
        lambda: L.BatchNormalization(renorm=True, renorm_clipping={"rmax": 2.0, "rmin": 0.5, "dmax": 1.0}),
    ),
    "BatchNormalization synchronised": (IMAGE, lambda: L.BatchNormalization(synchronized=True)),
    "GroupNormalization of instances": (IMAGE, lambda: L.GroupNormalization(groups=-1)),
    "GroupNormalization channels first": ((4, 8, 7), lambda: L.GroupNormalization(2, axis=1)),
    "LayerNormalization of axes": (IMAGE, lambda: L.LayerNormalization(axis=(1, 2), center=False)),
    "LayerNormalization of the first": (ROWS, lambda: L.LayerNormalization(axis=1, scale=False)),
    "RMSNormalization of axes": (ROWS, lambda: L.RMSNormalization(axis=(1, 2))),
    "UnitNormalization of axes": (IMAGE, lambda: L.UnitNormalization(axis=(1, 3))),
    "SpectralNormalization of filters": (IMAGE, lambda: L.SpectralNormalization(L.Conv2D(4, 3), power_iterations=2)),
    "Normalization inverted": ((5,), lambda: L.Normalization(mean=0.3, variance=2.0, invert=True)),
    "Normalization of an axis": (ROWS, lambda: L.Normalization(axis=1, mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0] * 4)),
}

_OTHERS: Table = {
    "Dense regularised": (
        ROWS,
        lambda: L.Dense(4, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), activity_regularizer="l1"),
    ),
    "Dense orthogonal": (ROWS, lambda: L.Dense(4, kernel_regularizer="orthogonal_regularizer", bias_regularizer="l2")),
    "Dense LoRA": (ROWS, lambda: L.Dense(4, lora_rank=2)),
    "EinsumDense of heads": (ROWS, lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", lora_rank=2)),
    "Dropout of shapes": (ROWS, lambda: L.Dropout(0.3, noise_shape=(None, 1, 6), seed=1)),
    "AlphaDropout of shapes": (ROWS, lambda: L.AlphaDropout(0.3, noise_shape=(None, 1, 6), seed=1)),
    "SpatialDropout2D channels first": ((4, 8, 7), lambda: L.SpatialDropout2D(0.3, data_format=FIRST, seed=1)),
    "Softmax of axes": (ROWS, lambda: L.Softmax(axis=(1, 2))),
    "PReLU shared": (IMAGE, lambda: L.PReLU(alpha_initializer="ones", shared_axes=(1, 2))),
    "Flatten channels first": ((4, 8, 7), lambda: L.Flatten(data_format=FIRST)),
    "CenterCrop of small images": (IMAGE, lambda: L.CenterCrop(10, 9)),
    "CenterCrop channels first": ((4, 8, 7), lambda: L.CenterCrop(5, 3, data_format=FIRST)),
    "Cropping3D channels first": ((2, 5, 6, 4), lambda: L.Cropping3D(((1, 0), (1, 2), (0, 1)), data_format=FIRST)),
    "Resizing lanczos3": (IMAGE, lambda: L.Resizing(5, 9, interpolation="lanczos3")),
    "Resizing lanczos5": (IMAGE, lambda: L.Resizing(5, 9, interpolation="lanczos5")),
    "Resizing antialias": (IMAGE, lambda: L.Resizing(5, 4, antialias=True)),
    "Resizing with padding": (IMAGE, lambda: L.Resizing(5, 9, pad_to_aspect_ratio=True, fill_value=0.5)),
    "Resizing channels first": ((4, 8, 7), lambda: L.Resizing(5, 9, interpolation="bicubic", data_format=FIRST)),
    "UpSampling2D bicubic": (IMAGE, lambda: L.UpSampling2D(2, interpolation="bicubic")),
    "UpSampling2D lanczos3": (IMAGE, lambda: L.UpSampling2D(2, interpolation="lanczos3")),
    "UpSampling2D channels first": ((4, 8, 7), lambda: L.UpSampling2D((2, 3), data_format=FIRST)),
    "UpSampling3D channels first": ((2, 3, 2, 4), lambda: L.UpSampling3D((2, 1, 3), data_format=FIRST)),
    "ZeroPadding1D channels first": (SIGNAL, lambda: L.ZeroPadding1D((1, 2), data_format=FIRST)),
    "ZeroPadding2D channels first": ((4, 8, 7), lambda: L.ZeroPadding2D(((1, 0), (2, 1)), data_format=FIRST)),
    "ZeroPadding3D channels first": ((2, 3, 2, 4), lambda: L.ZeroPadding3D(1, data_format=FIRST)),
    **{
        f"STFTSpectrogram {mode}": (
            (64, 1),
            partial(L.STFTSpectrogram, mode, frame_length=16, frame_step=8, fft_length=32, padding="same"),
        )
        for mode in ("magnitude", "psd", "real", "imag", "angle", "stft")
    },
    "MelSpectrogram linear": (
        (64, 1),
        lambda: keras.Sequential(
            [L.Flatten(), L.MelSpectrogram(16, 8, 12, num_mel_bins=4, sampling_rate=64, power_to_db=False, mag_exp=1.0)]
        ),
    ),
}


def layer_option_cases() -> list[Case]:
    """All of them, each after a Dense."""
    tables = {**_CONVOLUTIONS, **_POOLING, **_NORMALISATION, **_OTHERS}
    return [Case("layers", name, _model(*entry), tracks=name.partition(" ")[0]) for name, entry in tables.items()]


def _model(shape: tuple[int, ...], make: Make) -> Make:
    return after_dense(shape, lambda h: make()(h))


def _masked(layer: Any) -> Any:
    """The layer on sequences of which one step in two or so is masked."""

    def apply(h: Any) -> Any:
        return layer(h, mask=keras.ops.sum(h, axis=-1) > 0)

    return apply
