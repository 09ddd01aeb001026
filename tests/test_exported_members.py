"""The public API: complete, sorted, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import graphfreeze
from graphfreeze import errors

FUNCTIONS = ["export", "fold", "inspect", "rewrite", "train", "validate", "verify"]


def test_everything_public_is_exported() -> None:
    assert graphfreeze.__all__ == sorted([*errors.__all__, *FUNCTIONS, "Selection", "Trainer", "__version__"])
    assert dir(graphfreeze) == graphfreeze.__all__


@pytest.mark.parametrize("name", graphfreeze.__all__)
def test_every_exported_name_exists_and_says_what_it_is(name: str) -> None:
    value = getattr(graphfreeze, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'melt'"):
        _ = graphfreeze.melt


def test_the_version_is_the_one_of_the_package() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert graphfreeze.__version__ == pyproject["project"]["version"]


HEAVY = ("tensorflow", "keras", "onnxruntime", "onnx", "numpy", "click", "rich")


def test_importing_is_cheap() -> None:
    script = f"""
import sys, time
started = time.perf_counter()
import graphfreeze
print(time.perf_counter() - started, [name for name in {HEAVY} if name in sys.modules])
"""
    command = [sys.executable, "-c", script]
    # The best of three, because another program may slow one down.
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in outputs) < 0.5
    assert {loaded for _, loaded in outputs} == {"[]"}
