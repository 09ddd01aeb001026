"""The layers of keras.layers that take one tensor of floats, each on a tiny model in training mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tools.coverage_cases.case import Case, after_dense

__all__ = ["LEFT_OUT", "layer_cases"]

LEFT_OUT = {
    "FlaxLayer": "it wraps a layer of another framework",
    "JaxLayer": "it wraps a layer of another framework",
    "TorchModuleWrapper": "it wraps a layer of another framework",
    "HashedCrossing": "it hashes; do that before the step",
    "Hashing": "it hashes; do that before the step",
    "StringLookup": "it works on strings; do that before the step",
    "TextVectorization": "it works on strings; do that before the step",
    "InputSpec": "no layer",
    "Layer": "a base class",
    "Wrapper": "a base class",
    "MaxNumBoundingBoxes": "it works on labels, in a data pipeline",
    "TFSMLayer": "a SavedModel within a model: rewrite that one",
}
"""The classes of keras.layers without a case, and why."""

L = keras.layers
IMAGE, SIGNAL, VOLUME = (8, 7, 3), (9, 4), (5, 6, 4, 2)
OPEN = (None, 4)
Make = Callable[[], Any]
Table = Mapping[str, tuple[tuple[int | None, ...], Make]]


_SIMPLE: Table = {
    # core
    "Activation": ((5,), lambda: L.Activation("tanh")),
    "Dense": ((5,), lambda: L.Dense(4, activation="relu", kernel_regularizer="l2")),
    "EinsumDense": ((4, 5), lambda: L.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")),
    "Identity": ((5,), lambda: L.Identity()),
    "Lambda": ((5,), lambda: L.Lambda(lambda x: x * 2.0 + 1.0)),
    "Masking": (SIGNAL, lambda: L.Masking(0.0)),
    "Pipeline": ((5,), lambda: L.Pipeline([L.Rescaling(0.5), L.Dense(3)])),
    # convolution
    "Conv1D": (SIGNAL, lambda: L.Conv1D(3, 3, padding="same", strides=2)),
    "Conv1D causal dilated": (SIGNAL, lambda: L.Conv1D(3, 2, padding="causal", dilation_rate=2)),
    "Conv2D": (IMAGE, lambda: L.Conv2D(4, 3, padding="same", strides=2)),
    "Conv2D dilated": (IMAGE, lambda: L.Conv2D(4, 2, dilation_rate=2)),
    "Conv2D groups": ((8, 7, 4), lambda: L.Conv2D(6, 3, groups=2)),
    "Conv2D channels first": ((4, 8, 7), lambda: L.Conv2D(6, 3, data_format="channels_first")),
    "Conv3D": (VOLUME, lambda: L.Conv3D(3, 2, strides=(1, 2, 1))),
    "Conv3D same": (VOLUME, lambda: L.Conv3D(3, 3, padding="same")),
    "Conv1DTranspose": (SIGNAL, lambda: L.Conv1DTranspose(3, 3, strides=2, padding="same")),
    "Conv2DTranspose": (IMAGE, lambda: L.Conv2DTranspose(4, 3, strides=2)),
    "Conv2DTranspose same": (IMAGE, lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1)),
    "Conv3DTranspose": (VOLUME, lambda: L.Conv3DTranspose(3, 2, strides=2)),
    "DepthwiseConv1D": (SIGNAL, lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "DepthwiseConv2D": (IMAGE, lambda: L.DepthwiseConv2D(3, strides=2, padding="same")),
    "SeparableConv1D": (SIGNAL, lambda: L.SeparableConv1D(3, 3)),
    "SeparableConv2D": (IMAGE, lambda: L.SeparableConv2D(3, 3, depth_multiplier=2)),
    # pooling
    "AveragePooling1D": (SIGNAL, lambda: L.AveragePooling1D(2)),
    "AveragePooling2D": (IMAGE, lambda: L.AveragePooling2D(3, strides=2, padding="same")),
    "AveragePooling3D": (VOLUME, lambda: L.AveragePooling3D(2)),
    "MaxPooling1D": (SIGNAL, lambda: L.MaxPooling1D(2)),
    "MaxPooling2D": (IMAGE, lambda: L.MaxPooling2D(3, strides=2, padding="same")),
    "MaxPooling3D": (VOLUME, lambda: L.MaxPooling3D(2)),
    "GlobalAveragePooling1D": (SIGNAL, lambda: L.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": (IMAGE, lambda: L.GlobalAveragePooling2D()),
    "GlobalAveragePooling3D": (VOLUME, lambda: L.GlobalAveragePooling3D()),
    "GlobalMaxPooling1D": (SIGNAL, lambda: L.GlobalMaxPooling1D()),
    "GlobalMaxPooling2D": (IMAGE, lambda: L.GlobalMaxPooling2D()),
    "GlobalMaxPooling3D": (VOLUME, lambda: L.GlobalMaxPooling3D()),
    "AdaptiveAveragePooling1D": (SIGNAL, lambda: L.AdaptiveAveragePooling1D(3)),
    "AdaptiveAveragePooling2D": (IMAGE, lambda: L.AdaptiveAveragePooling2D(3)),
    "AdaptiveAveragePooling3D": (VOLUME, lambda: L.AdaptiveAveragePooling3D(3)),
    "AdaptiveMaxPooling1D": (SIGNAL, lambda: L.AdaptiveMaxPooling1D(3)),
    "AdaptiveMaxPooling2D": (IMAGE, lambda: L.AdaptiveMaxPooling2D(3)),
    "AdaptiveMaxPooling3D": (VOLUME, lambda: L.AdaptiveMaxPooling3D(3)),
    # normalisation
    "BatchNormalization": (IMAGE, lambda: L.BatchNormalization()),
    "BatchNormalization of rows": ((5,), lambda: L.BatchNormalization(momentum=0.8)),
    "GroupNormalization": ((6, 4), lambda: L.GroupNormalization(2)),
    "LayerNormalization": ((4, 6), lambda: L.LayerNormalization()),
    "RMSNormalization": ((4, 6), lambda: L.RMSNormalization()),
    "UnitNormalization": ((6,), lambda: L.UnitNormalization()),
    "SpectralNormalization": ((6,), lambda: L.SpectralNormalization(L.Dense(4))),
    # regularisation, with its noise
    "ActivityRegularization": ((5,), lambda: L.ActivityRegularization(l1=0.1, l2=0.2)),
    "AlphaDropout": ((5,), lambda: L.AlphaDropout(0.3, seed=1)),
    "Dropout": ((5,), lambda: L.Dropout(0.3, seed=1)),
    "GaussianDropout": ((5,), lambda: L.GaussianDropout(0.3, seed=1)),
    "GaussianNoise": ((5,), lambda: L.GaussianNoise(0.3, seed=1)),
    "SpatialDropout1D": (SIGNAL, lambda: L.SpatialDropout1D(0.3, seed=1)),
    "SpatialDropout2D": (IMAGE, lambda: L.SpatialDropout2D(0.3, seed=1)),
    "SpatialDropout3D": (VOLUME, lambda: L.SpatialDropout3D(0.3, seed=1)),
    # reshaping
    "CenterCrop": (IMAGE, lambda: L.CenterCrop(5, 4)),
    "Cropping1D": (SIGNAL, lambda: L.Cropping1D((1, 2))),
    "Cropping2D": (IMAGE, lambda: L.Cropping2D(((1, 2), (0, 1)))),
    "Cropping3D": (VOLUME, lambda: L.Cropping3D(1)),
    "Flatten": (SIGNAL, lambda: L.Flatten()),
    "Permute": ((3, 4, 5), lambda: L.Permute((3, 1, 2))),
    "RepeatVector": ((5,), lambda: L.RepeatVector(3)),
    "Reshape": ((4, 6), lambda: L.Reshape((-1, 3))),
    "Resizing": (IMAGE, lambda: L.Resizing(5, 9)),
    "Resizing nearest": (IMAGE, lambda: L.Resizing(5, 9, interpolation="nearest")),
    "Resizing bicubic": (IMAGE, lambda: L.Resizing(5, 9, interpolation="bicubic")),
    "Resizing with crop": (IMAGE, lambda: L.Resizing(5, 5, crop_to_aspect_ratio=True)),
    "UpSampling1D": (SIGNAL, lambda: L.UpSampling1D(2)),
    "UpSampling2D": (IMAGE, lambda: L.UpSampling2D(2)),
    "UpSampling2D bilinear": (IMAGE, lambda: L.UpSampling2D((2, 3), interpolation="bilinear")),
    "UpSampling3D": (VOLUME, lambda: L.UpSampling3D(2)),
    "ZeroPadding1D": (SIGNAL, lambda: L.ZeroPadding1D(2)),
    "ZeroPadding2D": (IMAGE, lambda: L.ZeroPadding2D(((1, 0), (2, 1)))),
    "ZeroPadding3D": (VOLUME, lambda: L.ZeroPadding3D(1)),
    # activations
    "ELU": ((5,), lambda: L.ELU(0.7)),
    "LeakyReLU": ((5,), lambda: L.LeakyReLU(0.2)),
    "PReLU": ((5,), lambda: L.PReLU(alpha_initializer="ones")),
    "ReLU": ((5,), lambda: L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)),
    "Softmax": ((5,), lambda: L.Softmax()),
    # recurrent
    "SimpleRNN": (SIGNAL, lambda: L.SimpleRNN(3)),
    "SimpleRNN backwards": (SIGNAL, lambda: L.SimpleRNN(3, go_backwards=True, return_sequences=True)),
    "LSTM": (SIGNAL, lambda: L.LSTM(3)),
    "LSTM dropout": (SIGNAL, lambda: L.LSTM(3, dropout=0.3, recurrent_dropout=0.2, return_sequences=True, seed=1)),
    "LSTM backwards": (SIGNAL, lambda: L.LSTM(3, go_backwards=True, return_sequences=True)),
    "LSTM unrolled": (SIGNAL, lambda: L.LSTM(3, unroll=True)),
    "GRU": (SIGNAL, lambda: L.GRU(3)),
    "GRU dropout": (SIGNAL, lambda: L.GRU(3, dropout=0.3, recurrent_dropout=0.2, seed=1)),
    "GRU reset before": (SIGNAL, lambda: L.GRU(3, reset_after=False, go_backwards=True)),
    "LSTMCell": (SIGNAL, lambda: L.RNN(L.LSTMCell(3))),
    "GRUCell": (SIGNAL, lambda: L.RNN(L.GRUCell(3), return_sequences=True)),
    "SimpleRNNCell": (SIGNAL, lambda: L.RNN(L.SimpleRNNCell(3))),
    "RNN": (SIGNAL, lambda: L.RNN(L.LSTMCell(3), go_backwards=True)),
    "StackedRNNCells": (SIGNAL, lambda: L.RNN(L.StackedRNNCells([L.GRUCell(3), L.LSTMCell(2)]))),
    "Bidirectional": (SIGNAL, lambda: L.Bidirectional(L.LSTM(3, return_sequences=True))),
    "SimpleRNN any length": (OPEN, lambda: L.SimpleRNN(3, go_backwards=True, return_sequences=True)),
    "LSTM any length": (OPEN, lambda: L.LSTM(3)),
    "LSTM any length dropout": (OPEN, lambda: L.LSTM(3, dropout=0.3, recurrent_dropout=0.2, seed=1)),
    "GRU any length": (OPEN, lambda: L.GRU(3, return_sequences=True)),
    "Bidirectional any length": (OPEN, lambda: L.Bidirectional(L.LSTM(3, return_sequences=True))),
    "ConvLSTM1D any length": ((None, 6, 2), lambda: L.ConvLSTM1D(2, 3, padding="same")),
    # what slides over sequences, whose length strides divide
    "Conv1D any length": (OPEN, lambda: L.Conv1D(3, 3, padding="same")),
    "Conv1D any length valid": (OPEN, lambda: _pooled(L.Conv1D(3, 3))),
    "Conv1D any length causal": (OPEN, lambda: L.Conv1D(3, 3, padding="causal")),
    "Conv1D any length dilated": (OPEN, lambda: L.Conv1D(3, 3, padding="same", dilation_rate=2)),
    "Conv1D any length strided": (OPEN, lambda: _pooled(L.Conv1D(3, 3, padding="same", strides=2))),
    "Conv1D any length to LSTM": (
        OPEN,
        lambda: keras.Sequential([L.Conv1D(3, 3, strides=2), L.MaxPooling1D(), L.LSTM(3), L.Dense(2)]),
    ),
    "SeparableConv1D any length": (OPEN, lambda: _pooled(L.SeparableConv1D(3, 3, strides=2))),
    "DepthwiseConv1D any length": (OPEN, lambda: L.DepthwiseConv1D(3, padding="same", depth_multiplier=2)),
    "Conv1DTranspose any length": (OPEN, lambda: _pooled(L.Conv1DTranspose(3, 3, strides=2, padding="same"))),
    "MaxPooling1D any length": (OPEN, lambda: _pooled(L.MaxPooling1D(3, 2, padding="same"))),
    "AveragePooling1D any length": (OPEN, lambda: _pooled(L.AveragePooling1D(3, 2, padding="same"))),
    "TimeDistributed": ((3, 6, 4), lambda: L.TimeDistributed(L.Conv1D(2, 3))),
    "ConvLSTM1D": ((3, 6, 2), lambda: L.ConvLSTM1D(2, 3, padding="same")),
    "ConvLSTM2D": ((3, 5, 4, 2), lambda: L.ConvLSTM2D(2, 3, padding="same", return_sequences=True)),
    "ConvLSTM3D": ((2, 3, 4, 3, 2), lambda: L.ConvLSTM3D(2, 2, padding="same")),
    # preprocessing of numbers
    "Normalization": ((5,), lambda: L.Normalization(mean=0.3, variance=2.0)),
    "Rescaling": ((5,), lambda: L.Rescaling(0.5, 0.1)),
    "MelSpectrogram": (
        (64, 1),
        lambda: keras.Sequential([L.Flatten(), L.MelSpectrogram(16, 8, num_mel_bins=4, sampling_rate=64)]),
    ),
    "STFTSpectrogram": ((64, 1), lambda: L.STFTSpectrogram(frame_length=16, frame_step=8, fft_length=16)),
}


def _pooled(layer: Any) -> Any:
    """The layer, whose output has another length than the input, and the mean over that."""
    return keras.Sequential([layer, L.GlobalAveragePooling1D()])


def layer_cases() -> list[Case]:
    """All of them, each after a Dense."""
    return [Case("layers", name, _model(*entry), tracks=name.partition(" ")[0]) for name, entry in _SIMPLE.items()]


def _model(shape: tuple[int | None, ...], make: Make) -> Make:
    return after_dense(shape, lambda h: make()(h))
