"""Reads a Keras file without running anything that came with it.

Keras itself builds only its own classes in safe mode. Here the configuration is looked through first, so that all
classes that cannot be built are named at once, before any of them is looked for.
"""

from __future__ import annotations

import json
import random
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from graphfreeze.errors import ModelReadError, UnsupportedError, UsageError

__all__ = ["load_keras_file"]

# What Keras ships that runs code, or loads models, which its configuration names.
_RUNS_CODE = {name: name for name in ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")}
_LAMBDA = "a Python lambda"
_RUNS_CODE["__lambda__"] = _LAMBDA
_KERAS_PACKAGES = frozenset({"keras", "keras_hub", "keras_cv", "keras_nlp"})
_FUNCTION_HOMES = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
_CLASS_HOMES = ("layers", "models", *_FUNCTION_HOMES)
_REMEDY = (
    "Load the model in Python yourself, where you decide what to run, and give it to graphfreeze.export(model, "
    "SAVED_MODEL)"
)


def load_keras_file(path: Path, seed: int) -> Any:
    """The model in a `.keras` file, or in an `.h5` file of Keras 3, not compiled.

    Args:
        path: The file.
        seed: The seed of what has none in the file: Keras draws one for each dropout layer that was given none.

    Raises:
        UsageError: It is not named like a Keras file.
        ModelReadError: It is missing, or no Keras file.
        UnsupportedError: It holds code, or classes that are not Keras' own.
    """
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UsageError(f"expected a Keras file (.keras, .h5), found {path}" + _hint(path))
    if not path.is_file():
        raise ModelReadError(f"{path} is missing, or no file")
    _refuse_foreign(_read_config(path), path)
    try:
        with _seeded(seed):
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a damaged file makes Keras, h5py and zipfile stumble over
        raise ModelReadError(f"{path} cannot be read as a Keras model: {_first_line(error)}") from error


def _hint(path: Path) -> str:
    return ": it is a SavedModel already" if (path / "saved_model.pb").is_file() else ""


def _read_config(path: Path) -> Any:
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
        else:
            with h5py.File(path, "r") as file:
                text = file.attrs["model_config"]
        return json.loads(text)
    except KeyError as error:
        raise ModelReadError(
            f"{path} holds no model configuration: expected a whole model, saved by model.save(), not its weights alone"
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, RecursionError) as error:
        raise ModelReadError(f"{path} cannot be read as a Keras model: {_first_line(error)}") from error


def _refuse_foreign(config: Any, path: Path) -> None:
    objects = list(_objects(config))
    entries = [entry for entry in objects if isinstance(entry.get("class_name"), str) and "config" in entry]
    code = Counter(_RUNS_CODE[entry["class_name"]] for entry in entries if entry["class_name"] in _RUNS_CODE)
    code[_LAMBDA] += sum(map(_is_bare_lambda, objects))
    foreign = Counter(_full_name(entry) for entry in entries if _is_foreign(entry))
    if +code:
        raise UnsupportedError(
            f"{path} brings code or models of its own, which are never run from a file: "
            f"{_list(+code)}. {_REMEDY}; or replace them by keras.ops or by layers of Keras",
            {"objects": dict(+code)},
        )
    if foreign:
        raise UnsupportedError(
            f"{path} needs classes or functions that are not Keras' own: {_list(foreign)}. {_REMEDY}",
            {"objects": dict(foreign)},
        )


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a configuration, without what a model was compiled with: that is not built."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += [item for key, item in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            pending += value


def _is_bare_lambda(value: dict[str, Any]) -> bool:
    """Whether it is a lambda as an activation, which Keras writes without a class: bytecode, defaults, closure."""
    content = value.get("value")
    return value.keys() == {"value"} and isinstance(content, list) and len(content) == 3 and isinstance(content[0], str)


def _is_foreign(entry: dict[str, Any]) -> bool:
    name, module = entry["class_name"], entry.get("module")
    if name in _RUNS_CODE or (name.startswith("__") and name.endswith("__")):
        return False
    if keras.saving.get_registered_object(_registered_name(entry)) is not None:
        return False  # registered by the running program, which has its code already
    if name == "function" and module in (None, "builtins"):
        return not _is_of_keras(str(entry["config"]), _FUNCTION_HOMES)
    if isinstance(module, str):
        return module.partition(".")[0] not in _KERAS_PACKAGES
    # Old files name Keras' own classes without a module.
    return "module" in entry or not _is_of_keras(name, _CLASS_HOMES)


def _is_of_keras(name: str, homes: tuple[str, ...]) -> bool:
    return name == "Functional" or any(hasattr(getattr(keras, home), name) for home in homes)


def _registered_name(entry: dict[str, Any]) -> str:
    return str(entry.get("registered_name") or entry["class_name"])


def _full_name(entry: dict[str, Any]) -> str:
    return str(entry["config"]) if entry["class_name"] == "function" else _registered_name(entry)


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in sorted(counts.items()))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Keras takes the seeds that nobody gave from Python's generator."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
