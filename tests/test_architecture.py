"""Which part of the package may import which, and which parts work without TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphfreeze

ROOT = Path(graphfreeze.__file__).parent

# Part -> what it may import besides itself, the errors and the version: whole parts, or single modules.
# A part is a folder or a file directly below graphfreeze/.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "interruption": (),
    "output": ("interruption",),
    "tensorflow_loader": (),
    "selection": (),
    "artifact": ("selection",),
    "runtime": ("artifact", "selection", "output"),
    "validation": ("runtime", "artifact", "selection"),
    "savedmodel": ("selection",),
    "passes": ("savedmodel", "selection"),
    "prover": ("selection",),
    "training": ("selection", "savedmodel"),
    "lowering": ("training.gradient_names", "training.graph", "training.variable_uses"),
    "checks": ("savedmodel", "selection", "training", "lowering", "artifact", "runtime", "validation"),
    "assembly": ("artifact", "lowering", "training"),
    "pipeline": (
        "assembly",
        "selection",
        "savedmodel",
        "passes",
        "prover",
        "training",
        "lowering",
        "artifact",
        "runtime",
        "validation",
        "checks",
        "output",
        "tensorflow_loader",
    ),
    "folding": ("selection", "savedmodel", "passes", "artifact", "output", "tensorflow_loader"),
    "keras_export": ("training", "passes", "output", "tensorflow_loader"),
    "cli": ("pipeline", "output", "runtime", "selection", "tensorflow_loader"),
    "__init__": ("folding", "keras_export", "pipeline", "runtime", "selection"),
    "__main__": ("cli",),
}

WITHOUT_TENSORFLOW = (
    "errors",
    "interruption",
    "output",
    "selection",
    "artifact",
    "runtime",
    "validation",
    "cli",
    "__init__",
)

SOURCES = sorted(ROOT.rglob("*.py"))


def imported_modules(source: Path) -> Iterator[str]:
    """The full names of what a file imports, inside functions too."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: relative import"
            assert node.module is not None
            # `from graphfreeze.training import graph` imports the module graphfreeze.training.graph.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(source: Path) -> str:
    return source.relative_to(ROOT).parts[0].removesuffix(".py")


def allowed(module: str, part: str) -> bool:
    """Whether a part may import `module`, named from below graphfreeze."""
    permitted = (part, "errors", *MAY_IMPORT[part])
    if module.partition(".")[0] not in MAY_IMPORT:
        # A name of the package itself: the lazy public functions are for the command line, the version for all.
        return part == "cli" or module == "__version__"
    return any(module == name or module.startswith(name + ".") for name in permitted)


def test_every_part_is_in_the_table() -> None:
    assert {part_of(source) for source in SOURCES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_imports_follow_the_table(source: Path) -> None:
    ours = [m.removeprefix("graphfreeze.") for m in imported_modules(source) if m.startswith("graphfreeze.")]
    assert [module for module in ours if not allowed(module, part_of(source))] == []


@pytest.mark.parametrize(
    "source",
    [source for source in SOURCES if part_of(source) in WITHOUT_TENSORFLOW],
    ids=lambda source: str(source.relative_to(ROOT)),
)
def test_parts_without_tensorflow_never_import_it(source: Path) -> None:
    imported = {module.partition(".")[0] for module in imported_modules(source)}
    assert imported.isdisjoint({"tensorflow", "keras", "tf_keras"})


def test_importing_every_module_without_tensorflow_loads_none() -> None:
    modules = [
        ".".join(("graphfreeze", *source.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for source in SOURCES
        if part_of(source) in WITHOUT_TENSORFLOW
    ]
    script = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(sorted(name for name in ("tensorflow", "keras", "tf_keras") if name in sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
