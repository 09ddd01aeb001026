"""Losses and optimizers in JSON: one is an object, several are a list of objects that say what each is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphfreeze.artifact.json_object import JsonObject
from graphfreeze.artifact.manifest import LossEntry, OptimizerEntry

__all__ = ["losses_from_json", "losses_to_json", "optimizers_from_json", "optimizers_to_json"]


def losses_to_json(losses: Sequence[LossEntry]) -> dict[str, Any]:
    """`loss`, an object, where the endpoint has one output; else `losses`, one object for each output with a loss."""
    if len(losses) == 1 and losses[0].output is None:
        (only,) = losses
        weight = {} if only.weight == 1.0 else {"weight": only.weight}
        return {"loss": {"name": only.name, "arguments": dict(only.arguments), **weight}}
    return {
        "losses": [
            {"output": loss.output, "name": loss.name, "arguments": dict(loss.arguments), "weight": loss.weight}
            for loss in losses
        ]
    }


def losses_from_json(fields: JsonObject) -> tuple[LossEntry, ...]:
    """The losses of an object with `loss` or `losses`.

    Raises:
        ArtifactReadError: A key is missing, unknown or of a wrong type.
    """
    if "losses" not in fields:
        only = fields.object("loss")
        weight = only.number("weight") if "weight" in only else 1.0
        losses = [LossEntry(only.text("name"), only.mapping("arguments"), weight=weight)]
        only.finish()
    else:
        losses = []
        for entry in fields.objects("losses"):
            name, arguments = entry.text("name"), entry.mapping("arguments")
            losses.append(LossEntry(name, arguments, entry.text("output"), entry.number("weight")))
            entry.finish()
        if not losses:
            fields.wrong("losses", "a list of at least one loss", [])
    return tuple(losses)


def optimizers_to_json(optimizers: Sequence[OptimizerEntry]) -> dict[str, Any]:
    """`optimizer`, an object, where one is for all parameters; else `optimizers`, one object for each."""
    if len(optimizers) == 1 and optimizers[0].parameters is None:
        (only,) = optimizers
        return {"optimizer": {"name": only.name, "arguments": dict(only.arguments)}}
    return {
        "optimizers": [
            {"parameters": entry.parameters, "name": entry.name, "arguments": dict(entry.arguments)}
            for entry in optimizers
        ]
    }


def optimizers_from_json(fields: JsonObject) -> tuple[OptimizerEntry, ...]:
    """The optimizers of an object with `optimizer` or `optimizers`.

    Raises:
        ArtifactReadError: A key is missing, unknown or of a wrong type.
    """
    if "optimizers" not in fields:
        only = fields.object("optimizer")
        optimizers = [OptimizerEntry(only.text("name"), only.mapping("arguments"))]
        only.finish()
    else:
        optimizers = []
        for entry in fields.objects("optimizers"):
            name, arguments = entry.text("name"), entry.mapping("arguments")
            optimizers.append(OptimizerEntry(name, arguments, entry.text_or_null("parameters")))
            entry.finish()
        if not optimizers:
            fields.wrong("optimizers", "a list of at least one optimizer", [])
    return tuple(optimizers)
