"""Each class of tests is about one model of the zoo, which is exported and rewritten once."""

from __future__ import annotations

import pytest

from tests.zoo.models import ZOO
from tests.zoo.rewriting import Rewritten
from tests.zoo.tensorflow_side import TensorFlowSide


@pytest.fixture(scope="class")
def rewritten(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    """The model of the class, rewritten."""
    assert request.cls is not None
    name = request.cls.model
    return Rewritten.make(ZOO[name], tmp_path_factory.mktemp(name))


@pytest.fixture(scope="class")
def tensorflow_side(rewritten: Rewritten) -> TensorFlowSide:
    """The rewritten SavedModel in TensorFlow."""
    return TensorFlowSide(rewritten)
