"""The reports of the public functions as tables for people. The JSON objects are described in docs/reports.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["exporting", "folding", "inspection", "rewriting", "training", "validation", "verification"]

Report = Mapping[str, Any]

_NAME_WIDTH = 24


def inspection(report: Report) -> list[RenderableType]:
    """Variables and endpoints of a SavedModel; or the state, batch and options of an artifact."""
    if report.get("kind") == "artifact":
        return _artifact(report)
    variables = [
        (
            v["name"],
            v["object_path"],
            _shape(v["shape"]),
            v["dtype"],
            "yes" if v["trainable"] else "no",
            _reads(v["reads"]),
        )
        for v in report["variables"]
    ]
    endpoints = [
        (kind, e["name"], _tensors(e["inputs"]), ", ".join(e["outputs"]))
        for kind in ("endpoint", "signature")
        for e in report[f"{kind}s"]
    ]
    frozen = [_frozen_variables("Frozen", report["frozen"])] if "frozen" in report else []
    return [
        *frozen,
        _table("Variables", ("name", "object path", "shape", "dtype", "trainable", "read by"), variables),
        _table("Endpoints", ("", "name", "inputs", "outputs"), endpoints),
    ]


def _artifact(report: Report) -> list[RenderableType]:
    state = [
        (
            s["name"],
            s["role"].replace("_", " "),
            _shape(s["shape"]),
            s["dtype"],
            _frozen(s["frozen_elements"], s["elements"]) if s.get("frozen_elements") else "",
            s.get("form") or "",
        )
        for s in report["state"]
    ]
    state += [
        (f["name"], "constant", _shape(f["shape"]), f["dtype"], _frozen(f["elements"], f["elements"]), "")
        for f in report["frozen"]
    ]
    return [
        _facts(
            {
                "endpoint": report["endpoint"],
                "loss": _losses(report),
                "optimizer": _optimizers(report),
                "batch": _tensors(report["batch"]),
            }
        ),
        _table("State", ("name", "role", "shape", "dtype", "frozen", "form"), state),
    ]


def rewriting(report: Report) -> list[RenderableType]:
    """What was frozen, where, in which form, and the evidence."""
    title = "Would be frozen (nothing was written)" if report["dry_run"] else "Frozen"
    rendered: list[RenderableType] = [_frozen_variables(title, report["variables"])]
    if report.get("training"):
        training = report["training"]
        facts = {
            "endpoint": training["endpoint"],
            "mode": training["mode"]["message"],
            "loss": _losses(training),
            "without their constraints": ", ".join(training["constraints_left_out"]) or None,
            "outputs without a loss": ", ".join(training["outputs_without_loss"]) or None,
            "sample weights": "in the data, as sample_weight" if training["sample_weight"] else None,
            "optimizer": _optimizers(training),
            "opset": training["opset"],
        }
        facts = {name: value for name, value in facts.items() if value is not None}
        rendered.append(_facts(facts))
    if report.get("checks"):
        rendered.append(_checks(report["checks"]))
    return rendered


def _frozen_variables(title: str, variables: Sequence[Report]) -> RenderableType:
    columns = ["variable", "shape", "elements", "form", "guarantee"]
    rows = [
        [v["name"], _shape(v["shape"]), _frozen(v["frozen_elements"], v["elements"]), v["form"], v["guarantee"]]
        for v in variables
    ]
    # Where nothing was rewritten, no reads were counted.
    if all("reads" in v for v in variables):
        columns.append("reads")
        rows = [[*row, str(len(v["reads"]))] for row, v in zip(rows, variables, strict=True)]
    return _table(title, columns, rows)


def verification(report: Report) -> list[RenderableType]:
    """What was proved."""
    return [_frozen_variables("Frozen", report["variables"]), _checks(report["checks"])]


def validation(report: Report) -> list[RenderableType]:
    """Each parameter's gradient against the reference, whether it moves and stays as planned, and what ran where."""
    if "parameters" not in report:
        return []
    parameters = [
        (
            "ok" if p["passed"] and not p["stuck"] else "FAILED",
            p["name"],
            f"{p['error']:.2g}",
            f"{p['allowed']:.2g}",
            p["rule"],
            f"{p['moved']:,} of {p['trainable_elements']:,}",
            f"{p['frozen_elements'] - p['frozen_not_zero']:,} of {p['frozen_elements']:,}"
            if p["frozen_elements"]
            else "",
        )
        for p in report["parameters"]
    ]
    columns = ("", "parameter", "error", "allowed", "rule", "trained, moved", "frozen, zero")
    return [
        _facts({key: report[key] for key in ("device", "device_reason", "loss", "loss_expected", "frozen_elements")}),
        _table("Gradients of the parameters", columns, parameters),
        _checks(report["checks"]),
    ]


def training(report: Report) -> list[RenderableType]:
    """The device, the losses, the frozen elements, and where the state was saved."""
    return [_facts(report)]


def folding(report: Report) -> list[RenderableType]:
    """What was written."""
    return [_facts(report)]


def exporting(report: Report) -> list[RenderableType]:
    """The endpoints that were written, and what they hold."""
    endpoints = [(e["name"], _tensors(e["inputs"]), ", ".join(e["outputs"])) for e in report["endpoints"]]
    facts = {key: value for key, value in report.items() if key != "endpoints"}
    facts["constraints"] = ", ".join(report["constraints"]) or "none"
    return [_table("Endpoints", ("name", "inputs", "outputs"), endpoints), _facts(facts)]


def _checks(checks: Sequence[Report]) -> RenderableType:
    rows = [(_verdict(c), c["name"], c.get("message", "")) for c in checks]
    return _table("Checks", ("", "check", "found"), rows)


def _verdict(check: Report) -> str:
    """`-` where nothing could be compared: neither does a check fail there, nor does it say anything."""
    evidence = check.get("evidence")
    if (
        check["passed"]
        and isinstance(evidence, Mapping)
        and (evidence.get("status") == "not available" or evidence.get("compared") == [])
    ):
        return "-"
    return "ok" if check["passed"] else "FAILED"


def _facts(report: Report) -> RenderableType:
    """The entries of a report that are one value each."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in report.items():
        if key != "schema_version" and not isinstance(value, Mapping | list | tuple):
            table.add_row(key.replace("_", " "), _cell(value))
    return table


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        # On a narrow terminal other columns wrap before names do.
        longest = max((len(row[i]) for row in rows), default=0) if column in ("name", "variable", "parameter") else 0
        table.add_column(column, overflow="fold", min_width=min(longest, _NAME_WIDTH))
    for row in rows:
        table.add_row(*row)
    return table


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return _shape(value)
    return "" if value is None else str(value)


def _shape(shape: Sequence[object] | None) -> str:
    if shape is None:
        return "any shape"
    return " x ".join("?" if size is None else str(size) for size in shape) or "scalar"


def _frozen(frozen: int, elements: int) -> str:
    return f"{frozen:,} of {elements:,}"


def _call(named: Report) -> str:
    arguments = ",".join(f"{key}={value}" for key, value in named["arguments"].items())
    return f"{named['name']}:{arguments}" if arguments else str(named["name"])


def _losses(report: Report) -> str:
    """The loss, or the sum of the losses of several outputs."""
    if "losses" not in report:
        return _weighted(report["loss"])
    return " + ".join(f"{_weighted(loss)} of {loss['output']}" for loss in report["losses"])


def _optimizers(report: Report) -> str:
    """The optimizer, or each with its parameters."""
    if "optimizers" not in report:
        return _call(report["optimizer"])
    return ", ".join(f"{_call(one)} of {one['parameters'] or 'all others'}" for one in report["optimizers"])


def _weighted(loss: Report) -> str:
    weight = loss.get("weight", 1.0)
    return _call(loss) if weight == 1.0 else f"{weight:g} * {_call(loss)}"


def _tensors(tensors: Sequence[Report]) -> str:
    return ", ".join(f"{t['name']} {t['dtype']} {_shape(t['shape'])}" for t in tensors)


def _reads(reads: Sequence[Report]) -> str:
    """`ReadVariableOp: serve, serving_default`: which operations read, and the endpoints that reach them."""
    lines = []
    for read in reads:
        names = dict.fromkeys(endpoint.rpartition(" ")[2] for endpoint in read["endpoints"])
        lines.append(f"{read['operation']}: {', '.join(names) or read['function']}")
    return "\n".join(dict.fromkeys(lines))
