"""Every loss that graphfreeze offers, on outputs that it is defined for."""

from __future__ import annotations

import keras

from graphfreeze.training.losses import LOSSES
from tools.coverage_cases.case import Case, after_dense

__all__ = ["loss_cases"]

_OUTPUTS = {
    "linear": after_dense((5,)),
    "sigmoid": after_dense((5,), lambda h: keras.layers.Activation("sigmoid")(h)),
    "softmax": after_dense((5,), lambda h: keras.layers.Activation("softmax")(h)),
    "softplus": after_dense((5,), lambda h: keras.layers.Activation("softplus")(h)),
}
_NORMALISED = after_dense((5,), lambda h: keras.layers.UnitNormalization()(h))
_SEQUENCE = after_dense((3, 5))
_SPEECH = after_dense((7, 5))
_ON_SEQUENCES = ["mse", "sparse_categorical_crossentropy:from_logits=true", "categorical_crossentropy:from_logits=true"]

_FOR = {
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
    "categorical_crossentropy": "softmax",
    "categorical_focal_crossentropy": "softmax",
    "categorical_generalized_cross_entropy": "softmax",
    "dice": "sigmoid",
    "kl_divergence": "softmax",
    "mean_squared_logarithmic_error": "softplus",
    "poisson": "softplus",
    "sparse_categorical_crossentropy": "softmax",
    "tversky": "sigmoid",
}

_VARIANTS = {
    "binary_crossentropy": ["from_logits=true", "from_logits=true,label_smoothing=0.1"],
    "binary_focal_crossentropy": [
        "from_logits=true",
        "from_logits=true,apply_class_balancing=true",
        "gamma=1.5,label_smoothing=0.1",
    ],
    "categorical_crossentropy": ["from_logits=true", "from_logits=true,label_smoothing=0.1"],
    "categorical_focal_crossentropy": ["from_logits=true", "alpha=0.4,gamma=1.5,label_smoothing=0.1"],
    "categorical_generalized_cross_entropy": ["q=0.8"],
    "circle": ["gamma=16,margin=0.25,remove_diagonal=false"],
    "cosine_similarity": ["axis=0"],
    "dice": ["axis=1"],
    "huber": ["delta=0.3"],
    "mean_squared_error": ["reduction=sum", "reduction=mean_with_sample_weight"],
    "sparse_categorical_crossentropy": ["from_logits=true", "from_logits=true,ignore_class=1"],
    "tversky": ["alpha=0.3,beta=0.7", "axis=1"],
}


def loss_cases() -> list[Case]:
    """Each loss by itself, its variants, and the usual ones on sequences."""
    cases = []
    for name, tracks in LOSSES.items():
        special = {"circle": _NORMALISED, "ctc": _SPEECH}
        make = special.get(name) or _OUTPUTS[_FOR.get(name, "linear")]
        cases.append(Case("losses", name, make, loss=name, tracks=tracks))
        for arguments in _VARIANTS.get(name, ()):
            make = _OUTPUTS["linear" if "from_logits" in arguments else _FOR.get(name, "linear")]
            cases.append(Case("losses", f"{name}:{arguments}", make, loss=f"{name}:{arguments}"))
    cases += [Case("losses", f"{loss} on sequences", _SEQUENCE, loss=loss) for loss in _ON_SEQUENCES]
    return cases
