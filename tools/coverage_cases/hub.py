"""Backbones of keras_hub, built small and without presets. The package is optional: `pip install keras-hub`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tools.coverage_cases.case import Case, integers

__all__ = ["hub_cases", "is_installed"]

GROUP = "keras_hub"
LENGTH = 6

_WORDS = {"vocabulary_size": 11, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 12}
_HEADS = {**_WORDS, "num_heads": 2}
_QUERIES = {**_WORDS, "num_query_heads": 2, "num_key_value_heads": 1}
_BOUNDED = {**_HEADS, "max_sequence_length": 8}
_VISION = {"image_shape": (16, 16, 3), "num_layers": 1, "num_heads": 2}

_BACKBONES: dict[str, Mapping[str, Any]] = {
    "BertBackbone": _BOUNDED,
    "RobertaBackbone": _BOUNDED,
    "DebertaV3Backbone": {**_BOUNDED, "bucket_size": 4},
    "AlbertBackbone": {**_BOUNDED, "embedding_dim": 4, "num_layers": 2},
    "DistilBertBackbone": _BOUNDED,
    "GPT2Backbone": _BOUNDED,
    "GPTNeoXBackbone": {**_BOUNDED, "rotary_percentage": 0.5},
    "OPTBackbone": _BOUNDED,
    "BloomBackbone": _HEADS,
    "LlamaBackbone": _QUERIES,
    "MistralBackbone": {**_QUERIES, "sliding_window": 4},
    "MixtralBackbone": {**_QUERIES, "num_experts": 3, "sliding_window": 4},
    "QwenBackbone": _QUERIES,
    "GemmaBackbone": {**_QUERIES, "head_dim": 4},
    "Phi3Backbone": {**_QUERIES, "max_sequence_length": 8, "pretraining_sequence_length": 8},
    "T5Backbone": _HEADS,
    "BartBackbone": _BOUNDED,
    "WhisperBackbone": {**_HEADS, "num_mels": 4, "max_encoder_sequence_length": 6, "max_decoder_sequence_length": 8},
    "ViTBackbone": {**_VISION, "patch_size": (8, 8), "hidden_dim": 8, "mlp_dim": 12},
    "CLIPBackbone": {},
    "ViTDetBackbone": {
        **_VISION,
        "hidden_size": 8,
        "intermediate_dim": 12,
        "global_attention_layer_indices": [0],
        "patch_size": 4,
        "num_output_channels": 4,
        "window_size": 2,
    },
    "XLNetBackbone": _HEADS,
    "FNetBackbone": {**_WORDS, "max_sequence_length": 8},
}


def is_installed() -> bool:
    """Whether keras_hub can be found."""
    return importlib.util.find_spec("keras_hub") is not None


_LOSSES = {"CLIPBackbone": "sparse_categorical_crossentropy:from_logits=true"}


def hub_cases() -> list[Case]:
    """Each backbone with a Dense on its sequence."""
    inputs = {"padding_mask": _prefixes, "encoder_padding_mask": _prefixes, "decoder_padding_mask": _prefixes}
    tokens = {name: integers(11) for name in ("token_ids", "encoder_token_ids", "decoder_token_ids")}
    return [
        Case(GROUP, name, _make(name, arguments), _LOSSES.get(name, "mse"), inputs={**inputs, **tokens})
        for name, arguments in _BACKBONES.items()
    ]


def _prefixes(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Masks of sequences of different lengths."""
    return np.asarray(np.arange(shape[1]) < rng.integers(2, shape[1] + 1, (shape[0], 1)))


def _make(name: str, arguments: Mapping[str, Any]) -> Callable[[], Any]:
    def make() -> Any:
        models = importlib.import_module("keras_hub.models")
        backbone = _clip(models) if name == "CLIPBackbone" else getattr(models, name)(**arguments)
        found = backbone.input if isinstance(backbone.input, dict) else {"images": backbone.input}
        inputs = {
            key: keras.Input(tuple(size or LENGTH for size in tensor.shape[1:]), dtype=tensor.dtype, name=key)
            for key, tensor in found.items()
        }
        outputs = backbone(inputs if isinstance(backbone.input, dict) else inputs["images"])
        if isinstance(outputs, dict):
            outputs = next(
                (outputs[k] for k in ("sequence_output", "decoder_sequence_output") if k in outputs), outputs
            )
        if isinstance(outputs, dict):
            # The similarity of each image and each text: the batch twice. The target is the text of each image.
            return keras.Model(inputs, outputs["vision_logits"], name="model")
        return keras.Model(inputs, keras.layers.Dense(2, name="head")(outputs), name="model")

    return make


def _clip(models: Any) -> Any:
    sizes = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "intermediate_dim": 12}
    layers = importlib.import_module("keras_hub.src.models.clip.clip_vision_encoder")
    words = importlib.import_module("keras_hub.src.models.clip.clip_text_encoder")
    vision = layers.CLIPVisionEncoder(patch_size=8, image_shape=(16, 16, 3), **sizes)
    text = words.CLIPTextEncoder(vocabulary_size=11, embedding_dim=8, max_sequence_length=LENGTH, **sizes)
    return models.CLIPBackbone(vision, text, projection_dim=8)
