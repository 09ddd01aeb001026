"""Each model of the zoo is exported and rewritten once, and its tests run one after the other."""

from __future__ import annotations

import pytest

from tests.zoo.models import ZOO
from tests.zoo.rewriting import Rewritten
from tests.zoo.tensorflow_side import TensorFlowSide


@pytest.fixture(
    scope="session", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"zoo {name}")) for name in ZOO]
)
def rewritten(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    """A model of the zoo, rewritten."""
    return Rewritten.make(ZOO[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def tensorflow_side(rewritten: Rewritten) -> TensorFlowSide:
    """The rewritten SavedModel in TensorFlow."""
    return TensorFlowSide(rewritten)
