"""How several optimizers are written, and which of them a parameter gets."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured
from graphfreeze.training.chosen_optimizers import parse_optimizers


def test_the_last_pattern_that_matches_counts() -> None:
    chosen = parse_optimizers(["encoder/**=adam:learning_rate=0.1", "sgd", "**/bias=lion", "encoder/a/kernel=adam"])
    names = {name: chosen.of(name) for name in ("encoder/a/bias", "encoder/a/kernel", "encoder/b/kernel", "kernel")}
    assert {name: str(one) for name, one in names.items()} == {
        "encoder/a/bias": "**/bias=lion",
        "encoder/a/kernel": "encoder/a/kernel=adam",
        "encoder/b/kernel": "encoder/**=adam",
        "kernel": "sgd",
    }
    assert [one.name for one in chosen.given] == ["adam", "sgd", "lion", "adam_2"]
    assert [one.learning_rate for one in chosen.given] == [
        *("adam/learning_rate", "learning_rate", "lion/learning_rate", "adam_2/learning_rate")
    ]
    assert chosen.given[0].configured == Configured("adam", {"learning_rate": 0.1})
    assert parse_optimizers("**=adam").of("kernel") is not None
    assert parse_optimizers("a=adam").of("kernel") is None


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "expected an optimizer, found none"),
        (
            ["sgd", "a=adam", "adamw"],
            r"expected one optimizer without a pattern at most, found sgd, adamw: say of which",
        ),
        (["sgd", "=adam"], "in '=adam': expected the name of a parameter, or a pattern, before the '='"),
        (["sgd", "a=adm"], "unknown optimizer 'adm'; nearest: adam"),
        (["sgd", "a=adam:rate"], "expected key=value, found 'rate'"),
        (
            ["sgd", "a=adam:loss_scale=dynamic"],
            "'loss_scale' scales the loss, which is one for all parameters: give it",
        ),
        (["sgd", "a=adam:loss_scale_factor=8"], "'loss_scale_factor' scales the loss"),
        (["sgd", "a=adam:loss_scale.initial_scale=8"], "'loss_scale.initial_scale' scales the loss"),
    ],
)
def test_what_cannot_be_is_refused(texts: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_optimizers(texts)
