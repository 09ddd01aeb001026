"""Tries graphfreeze on every SavedModel below a folder.

Each model is inspected; rewritten with its trainable variables frozen whole, and again with about half of their
elements; proven from the files both times; compared with the original, bit for bit, where TensorFlow can load it; and
folded back to its original graph. Or it is refused, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphfreeze.errors import GraphfreezeError, UnsupportedError
from tools.worker import CrashError, Worker

__all__ = ["DEFECT", "NOTHING", "REFUSED", "REWRITTEN", "Row", "document", "examine", "find_models", "main"]

REWRITTEN, REFUSED, NOTHING, DEFECT = "rewritten and verified", "refused", "nothing to freeze", "DEFECT"

_SECONDS_PER_MODEL = 600
_TENSORFLOW_1 = "TensorFlow 1"
_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")


@dataclass(frozen=True)
class Row:
    """What became of one model.

    Attributes:
        model: Its path below the folder.
        format: What wrote it, and how it holds its variables.
        variables: How many there are, and how many elements they have; empty where that is not known.
        outcome: One of the four.
        reason: Why it was refused; or what was masked and compared.
        error: The name of the error's class, where there was one.
    """

    model: str
    format: str
    variables: str
    outcome: str
    reason: str
    error: str = ""


def find_models(directory: Path) -> list[Path]:
    """The directories of all SavedModels below a folder, sorted."""
    return sorted({file.parent for name in _MODEL_FILES for file in directory.rglob(name)})


def examine(model: Path, name: str) -> Row:
    """Inspect, rewrite, prove and compare one model. Never raises."""
    kind = variables = ""
    try:
        kind, tags = _format(model)
        import graphfreeze

        table = graphfreeze.inspect(model, tags=tags)["variables"]
        variables = f"{len(table)} ({sum(entry['elements'] for entry in table)})"
        whole, half = _selections(table)
        if not whole:
            return Row(name, kind, variables, NOTHING, "it has no floating-point variable")
        # Models of TensorFlow 1 are compared in sessions, which load what tf.saved_model.load does not.
        problem = "" if kind.startswith(_TENSORFLOW_1) else _load_error(model)
        evidence = _rewrite(model, whole, tags, problem == "")
        if half:
            _rewrite(model, half, tags, problem == "")
        return Row(name, kind, variables, REWRITTEN, evidence + (f"; {problem}" if problem else ""))
    except GraphfreezeError as error:
        refused = isinstance(error, UnsupportedError) or error.exit_code == 4
        reason = str(error).replace(str(model), "the model")
        return Row(name, kind, variables, REFUSED if refused else DEFECT, reason, type(error).__name__)
    except Exception as error:
        return Row(name, kind, variables, DEFECT, f"{type(error).__name__}: {error}", type(error).__name__)


def _format(model: Path) -> tuple[str, list[str] | None]:
    """What wrote a model, told from its graph alone; and of several graphs, the tags of the first one."""
    from graphfreeze.savedmodel.files import read_saved_model

    try:
        graphs = read_saved_model(model).meta_graphs
    except GraphfreezeError:
        return "unreadable", None
    kinds = [_graph_format(graph, (model / "keras_metadata.pb").is_file()) for graph in graphs]
    return " + ".join(kinds), list(graphs[0].meta_info_def.tags) if len(graphs) > 1 else None


def _graph_format(graph: Any, keras_metadata: bool) -> str:
    version = graph.meta_info_def.tensorflow_version
    objects = graph.object_graph_def.nodes
    if not objects:
        operations = {node.op for node in graph.graph_def.node}
        styles = {"VariableV2": "reference", "Variable": "reference", "VarHandleOp": "resource"}
        found = sorted({style for operation, style in styles.items() if operation in operations})
        return f"{_TENSORFLOW_1}, {' and '.join(found) or 'no'} variables ({version})"
    identifiers = {node.user_object.identifier for node in objects if node.WhichOneof("kind") == "user_object"}
    if keras_metadata or any(identifier.startswith("_tf_keras") for identifier in identifiers):
        return f"Keras 2 save ({version})"
    if any(child.local_name == "_endpoint_names" for child in objects[0].children):
        return f"Keras 3 export ({version})"
    return f"TensorFlow 2 module ({version})"


def _selections(table: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Selectors for all variables, and for half of the elements of those that have several rows."""
    chosen = [entry for entry in table if entry["trainable"]]
    whole = ["**"] if chosen else []
    if not chosen:
        chosen = [entry for entry in table if "float" in entry["dtype"]]
        whole = [f"object:{entry['object_path']}" for entry in chosen]
    half = [f"object:{entry['object_path']}[::2]" for entry in chosen if entry["shape"] and entry["shape"][0] > 1]
    return whole, half


def _load_error(model: Path) -> str:
    """Why TensorFlow itself cannot load a model; empty where it can."""
    import tensorflow as tf

    try:
        tf.saved_model.load(str(model))
    except Exception as error:
        # Whatever goes wrong there is what a user of the model meets, too.
        return f"not compared: TensorFlow cannot load the original ({_first_line(error)})"
    return ""


def _rewrite(model: Path, selectors: Iterable[str], tags: list[str] | None, loadable: bool) -> str:
    """Rewrite and verify; what was found."""
    import graphfreeze

    selections = [graphfreeze.Selection("freeze", text) for text in selectors]
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"
        checks: Any = "full" if loadable else "static"
        report = graphfreeze.rewrite(model, out, selections, tags=tags, onnx=False, checks=checks)
        graphfreeze.verify(model, out)
        folded = Path(work) / "folded"
        graphfreeze.fold(out, folded, state=out / "saved_model")
        original = model / "saved_model.pb"
        if original.is_file() and (folded / "saved_model.pb").read_bytes() != original.read_bytes():
            raise RuntimeError("the folded model has another graph than the original")
    reads = sum(len(variable["reads"]) for variable in report["variables"])
    compared = [check for check in report["checks"] if "compared" in check.get("evidence", {})]
    endpoints = {record["endpoint"] for check in compared for record in check["evidence"]["compared"]}
    masked = f"{reads} reads of {len(report['variables'])} variables masked"
    if not loadable:
        return masked
    if not endpoints:
        skipped: list[Any] = next((check["evidence"]["skipped"] for check in compared), [])
        reason = f" ({skipped[0]['reason']})" if skipped else ""
        return f"{masked}; not compared: no endpoint can be called with random inputs{reason}"
    return f"{masked}; compared with the original at {', '.join(sorted(endpoints))}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().split("\n", 1)[0]


def document(rows: Sequence[Row]) -> str:
    """The page that tells all outcomes."""
    counts = Counter(row.outcome for row in rows)
    summary = ", ".join(f"{counts[name]} {name}" for name in (REWRITTEN, REFUSED, NOTHING, DEFECT) if counts[name])
    lines = [
        "# Compatibility",
        "",
        "What graphfreeze makes of SavedModels that others published. `tools/compatibility DIR` writes this page: each",
        "model below DIR is rewritten with its trainable variables frozen whole, and again with about half of their",
        "elements; both results are proven from the files, compared with the original in TensorFlow, bit for bit,",
        "where TensorFlow can load it, and folded back to the original graph.",
        "",
        f"{len(rows)} models: {summary}.",
        "",
        "| model | format | variables (elements) | outcome | reason or evidence |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (row.model, row.format, row.variables, row.outcome, row.reason)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(page: Path) -> int:
    """Examine all models, in a process of their own, so that a crash is one row and not the end; write the page."""
    parser = argparse.ArgumentParser(prog="tools/compatibility", description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="the folder whose SavedModels are tried")
    parser.add_argument("--output", type=Path, default=page, metavar="FILE", help="default: docs/compatibility.md")
    arguments = parser.parse_args()
    if importlib.util.find_spec("tensorflow") is None:
        parser.error("expected TensorFlow in this environment, found none: install graphfreeze[tensorflow,keras2]")
    models = find_models(arguments.directory)
    if not models:
        parser.error(f"expected SavedModels below {arguments.directory}, found none")
    # Terminated, it ends its worker and removes what that wrote, as when it is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows = []
    with Worker(examine) as worker:
        for model in models:
            name = model.relative_to(arguments.directory).as_posix()
            try:
                rows.append(worker.call(model, name, seconds=_SECONDS_PER_MODEL))
            except (CrashError, TimeoutError) as error:
                reason = "it took too long" if isinstance(error, TimeoutError) else "the process crashed"
                rows.append(Row(name, "", "", DEFECT, reason))
            print(f"{rows[-1].model}: {rows[-1].outcome}: {rows[-1].reason}", file=sys.stderr)
    arguments.output.write_text(document(rows), encoding="utf-8")
    return int(any(row.outcome == DEFECT for row in rows))
