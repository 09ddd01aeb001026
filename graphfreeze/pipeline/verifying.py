"""`verify`: the proof from the files, at any later time."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from graphfreeze.errors import VerificationError
from graphfreeze.pipeline.options import StrPath
from graphfreeze.pipeline.report import SCHEMA_VERSION, Report, describe_plan
from graphfreeze.pipeline.saved_model import RESTORED_BY_FOLD, prove_result
from graphfreeze.selection import load_plan
from graphfreeze.tensorflow_loader import load_tensorflow

__all__ = ["verify"]

_CHUNK = 1 << 22


def verify(original: StrPath, out: StrPath) -> Report:
    """Prove from the files that OUT freezes what its plan says and is otherwise the original.

    Raises:
        VerificationError: It is not; the message says where.
        FileError: A file is missing or corrupt.
    """
    load_tensorflow()
    from graphfreeze.savedmodel.earlier import original_file
    from graphfreeze.savedmodel.files import TEXT_GRAPH, read_saved_model
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.savedmodel.own_values import read_unchanged

    @cache
    def model() -> SavedModel:
        return SavedModel.load(original, plan.tags)

    directory = Path(out)
    plan = load_plan(directory / "plan", lambda variable, checksum: read_unchanged(model(), variable, checksum))
    for name in RESTORED_BY_FOLD:
        kept, source = directory / "plan" / f"original_{name}", original_file(Path(original), name)
        content = _content(source)
        if content is None and name == "saved_model.pb" and source.with_name(TEXT_GRAPH).is_file():
            content = read_saved_model(source.parent).SerializeToString(deterministic=True)
        if _content(kept) != content:
            raise VerificationError(
                f"{source} differs from {kept}, which is what was rewritten: expected the ORIGINAL of {out}. If it is, "
                "its copy was changed, and fold would restore another model"
            )
    evidence = prove_result(Path(original), directory / "saved_model", plan)
    _check_copies(directory / "plan", directory / "saved_model" / "assets.extra" / "graphfreeze")
    return {"schema_version": SCHEMA_VERSION, "passed": True, "variables": describe_plan(plan), "checks": [evidence]}


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _check_copies(plan: Path, carried: Path) -> None:
    """The plan that the SavedModel carries, from which it is rewritten again, is the one that was proven.

    Raises:
        VerificationError: Another one, or none, is there.
    """
    expected, found = (
        {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        for folder in (plan, carried)
    )
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected or name not in found or not _same_content(expected[name], found[name]):
            raise VerificationError(
                f"expected {carried / name} to be the same as {plan / name}, found that it is not: the rewritten model "
                "is frozen as planned, but would be rewritten again by what it carries. Copy the plan there, or "
                "rewrite the original model again"
            )


def _same_content(left: Path, right: Path) -> bool:
    if left.samefile(right):
        return True
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as a, right.open("rb") as b:
        return all(a.read(_CHUNK) == b.read(_CHUNK) for _ in range(0, left.stat().st_size, _CHUNK))
