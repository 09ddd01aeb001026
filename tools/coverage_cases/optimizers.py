"""Every optimizer, with schedules, clipping, averaged weights and accumulated gradients."""

from __future__ import annotations

from typing import Any

import keras

from graphfreeze.training.optimizers import OPTIMIZERS
from graphfreeze.training.schedules import SCHEDULES
from tools.coverage_cases.case import Case, integers

__all__ = ["optimizer_cases"]

L = keras.layers


def _images() -> Any:
    x = keras.Input((5, 5, 2), name="x")
    h = L.Flatten()(L.Conv2D(3, 3, activation="tanh", name="convolution")(x))
    return keras.Model(x, L.Dense(4, name="dense")(h), name="model")


def _half_images() -> Any:
    x = keras.Input((5, 5, 2), name="x")
    h = L.Conv2D(3, 3, activation="tanh", dtype="mixed_float16", name="convolution")(x)
    h = L.Dense(4, dtype="mixed_float16", name="dense")(L.Flatten()(h))
    return keras.Model(x, L.Activation("linear", dtype="float32", name="last")(h), name="model")


def _words() -> Any:
    x = keras.Input((6,), dtype="int32", name="x")
    return keras.Model(x, L.Dense(4, name="dense")(L.Embedding(7, 4, name="embedding")(x)), name="model")


_SCHEDULES = {
    "cosine_decay": "initial_learning_rate=0.1,decay_steps=10,warmup_target=0.2,warmup_steps=2",
    "cosine_decay_restarts": "initial_learning_rate=0.1,first_decay_steps=2",
    "exponential_decay": "initial_learning_rate=0.1,decay_steps=2,decay_rate=0.9,staircase=true",
    "inverse_time_decay": "initial_learning_rate=0.1,decay_steps=2,decay_rate=0.5",
    "piecewise_constant_decay": "boundaries=1/3,values=0.1/0.05/0.01",
    "polynomial_decay": "initial_learning_rate=0.1,decay_steps=10,power=2.0,cycle=true",
}
_SGD = "sgd:learning_rate=0.1,momentum=0.9"
_VARIANTS = {
    "sgd nesterov": f"{_SGD},nesterov=true",
    "adam amsgrad": "adam:amsgrad=true",
    "adamw amsgrad": "adamw:amsgrad=true,weight_decay=0.1,clipnorm=0.05",
    "rmsprop centered": "rmsprop:centered=true,momentum=0.9",
    "rmsprop centered without momentum": "rmsprop:centered=true,weight_decay=0.1",
    "adafactor relative step off": "adafactor:relative_step=false",
    "adafactor clipped": "adafactor:clip_threshold=0.5,beta_2_decay=-0.5,weight_decay=0.1",
    "ftrl regularised": "ftrl:l1_regularization_strength=0.01,l2_regularization_strength=0.02,beta=0.1",
    "ftrl shrinking": "ftrl:l2_shrinkage_regularization_strength=0.1,learning_rate_power=-0.3",
    "schedule_free_adamw warming up": "schedule_free_adamw:warmup_steps=2,weight_decay=0.1",
    "muon without Nesterov": "muon:nesterov=false,ns_steps=3,momentum=0.9,exclude_embeddings=false",
    "lamb decayed": "lamb:weight_decay=0.1,global_clipnorm=0.05",
    "lion decayed": "lion:weight_decay=0.1,use_ema=true",
    "weight decay": f"{_SGD},weight_decay=0.1",
    "clipnorm": f"{_SGD},clipnorm=0.05",
    "global_clipnorm": "adam:global_clipnorm=0.05",
    "clipvalue": f"{_SGD},clipvalue=0.01",
    "moving averages": "adam:use_ema=true,ema_momentum=0.9,ema_overwrite_frequency=2",
    "accumulated gradients": "adam:gradient_accumulation_steps=2,use_ema=true",
    "accumulated and clipped": f"{_SGD},gradient_accumulation_steps=3,clipnorm=0.05,weight_decay=0.1",
    "dynamic loss scale": "adam:loss_scale=dynamic,loss_scale.dynamic_growth_steps=2",
    "fixed loss scale": f"{_SGD},loss_scale_factor=1024",
}

_SEVERAL = {
    "MultiOptimizer": (_SGD, "dense/*=adam"),
    "MultiOptimizer of two rates": ("adam", "convolution/*=adam:learning_rate=0.0001"),
    "MultiOptimizer with clipping and averages": (
        "adamw:global_clipnorm=0.05,weight_decay=0.1",
        "dense/*=lamb:use_ema=true",
        "**/bias=schedule_free_adamw:clipnorm=0.05",
    ),
    "MultiOptimizer with a dynamic loss scale": (_VARIANTS["dynamic loss scale"], f"dense/*={_SGD}"),
}


def optimizer_cases() -> list[Case]:
    """Each optimizer on a convolution, on a table of which a batch names few rows, variants, and several at once."""
    tokens = {"x": integers(7)}
    cases = []
    for name, tracks in OPTIMIZERS.items():
        cases.append(Case("optimizers", name, _images, optimizer=name, steps=True, tracks=tracks))
        cases.append(Case("optimizers", f"{name} sparse", _words, optimizer=name, steps=True, inputs=tokens))
    for name in SCHEDULES:
        arguments = ",".join(f"learning_rate.{item}" for item in _SCHEDULES[name].split(","))
        text = f"sgd:momentum=0.9,learning_rate={name},{arguments}"
        cases.append(
            Case("optimizers", f"schedule {name}", _images, optimizer=text, steps=True, tracks=SCHEDULES[name])
        )
    cases += [Case("optimizers", name, _images, optimizer=text, steps=True) for name, text in _VARIANTS.items()]
    for name, texts in _SEVERAL.items():
        cases.append(Case("optimizers", name, _images, optimizer=texts, steps=True, tracks="MultiOptimizer"))
    rows = ("sgd", "embedding/*=rmsprop")
    cases.append(Case("optimizers", "MultiOptimizer sparse", _words, optimizer=rows, steps=True, inputs=tokens))
    scaled = _VARIANTS["dynamic loss scale"]
    cases.append(Case("optimizers", "dynamic loss scale in float16", _half_images, optimizer=scaled, steps=True))
    return cases
