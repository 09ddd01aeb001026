"""What holds for all tests."""

from __future__ import annotations

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let Keras number its layers anew: variables get the same names whichever tests a worker has run before."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].backend.reset_uids()
