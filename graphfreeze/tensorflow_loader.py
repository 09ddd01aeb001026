"""Importing TensorFlow: with a clear error where it is absent, and silently where silence is asked for."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator

from graphfreeze.errors import UsageError

__all__ = ["TENSORFLOW_MISSING", "load_tensorflow"]

TENSORFLOW_MISSING = "This needs TensorFlow, which is not installed. Install it: pip install 'graphfreeze[tensorflow]'"


def load_tensorflow() -> None:
    """Import TensorFlow. To be called before anything that imports it.

    Raises:
        UsageError: TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        return
    if importlib.util.find_spec("tensorflow") is None:
        raise UsageError(TENSORFLOW_MISSING)
    silent = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") != "0"
    with _stderr_held_back() if silent else contextlib.nullcontext():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and release it only if the body fails.

    While TensorFlow 2.21 is imported, its C++ parts log there whatever TF_CPP_MIN_LOG_LEVEL says.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held_back:
        stderr = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(stderr, 2)
            held_back.seek(0)
            with os.fdopen(os.dup(2), "wb") as released:
                shutil.copyfileobj(held_back, released)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
