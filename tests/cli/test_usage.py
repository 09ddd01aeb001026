"""The command line at the level of usage: options, order, versions, what a wrong request is answered with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest

import graphfreeze
from graphfreeze.cli import run
from graphfreeze.cli.commands import LOSSES
from graphfreeze.cli.commands import graphfreeze as group
from graphfreeze.cli.options import OrderedSelectionsCommand, ordered_selections
from graphfreeze.training import losses

COMMANDS = ("inspect", "rewrite", "verify", "validate", "train", "fold", "export")


def parsed_order(*arguments: str) -> list[tuple[str, str]]:
    """What the real rewrite command's options give as the ordered list."""
    rewrite = group.commands["rewrite"]
    command = OrderedSelectionsCommand("rewrite", params=rewrite.params, callback=lambda **_: ordered_selections())
    result: list[tuple[str, str]] = command.main(list(arguments), standalone_mode=False)
    return result


def test_the_commands_are_those_of_the_design() -> None:
    assert tuple(group.commands) == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--freeze", "a"], [("freeze", "a")]),
        (
            ["--train", "a", "--freeze", "b", "--train", "c", "--freeze", "d"],
            [("train", "a"), ("freeze", "b"), ("train", "c"), ("freeze", "d")],
        ),
        (["--freeze=a", "--loss", "mse", "--freeze", "a"], [("freeze", "a"), ("freeze", "a")]),
        (["--freeze", "-x", "--train", "--freeze"], [("freeze", "-x"), ("train", "--freeze")]),
        (["--spec", "spec.toml"], []),
    ],
)
def test_freeze_and_train_share_one_ordered_list(arguments: list[str], expected: list[tuple[str, str]]) -> None:
    assert parsed_order("MODEL", *arguments, "OUT") == expected


@pytest.mark.parametrize("arguments", [["--version"], *([command, "--version"] for command in COMMANDS)])
def test_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"graphfreeze, version {graphfreeze.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], *([command, "-h"] for command in COMMANDS)])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith("Usage: graphfreeze")


WRONG_USAGE = {
    "no such command": (["melt"], "No such command 'melt'"),
    "no such option": (["inspect", "MODEL", "--frozen"], "No such option"),
    "missing argument": (["inspect"], "Missing argument 'MODEL'"),
    "nothing selected": (["rewrite", "MODEL", "OUT", "--loss", "mse"], "Nothing is selected"),
    "no loss": (["rewrite", "MODEL", "OUT", "--freeze", "x"], "sparse_categorical_crossentropy, squared_hinge"),
    "loss without a step": (
        ["rewrite", "MODEL", "OUT", "--freeze", "x", "--no-onnx", "--loss", "mse"],
        "--no-onnx leaves out",
    ),
    "wrong form": (["rewrite", "MODEL", "OUT", "--freeze", "x", "--form", "mul"], "'mul' is not one of"),
    "wrong checks": (["rewrite", "MODEL", "OUT", "--freeze", "x", "--checks", "some"], "'some' is not one of"),
    "wrong device": (["validate", "OUT", "--device", "tpu"], "'tpu' is not one of"),
    "opset is no number": (["rewrite", "MODEL", "OUT", "--freeze", "x", "--opset", "new"], "'new' is not a valid"),
    "no data": (["train", "OUT", "--epochs", "1", "--batch-size", "1"], "Missing option '--data'"),
    "no epochs": (["train", "OUT", "--data", "d.npz", "--epochs", "0", "--batch-size", "1"], "'--epochs'"),
    "no batch": (["train", "OUT", "--data", "d.npz", "--epochs", "1", "--batch-size", "0"], "'--batch-size'"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG_USAGE.values(), ids=WRONG_USAGE.keys())
def test_wrong_usage_is_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err

    assert run([*arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    error = json.loads(captured.err)["error"]
    assert message in error["message"]
    assert error["exit_code"] == 2


def test_the_losses_listed_are_offered() -> None:
    assert set(LOSSES) <= set(losses.LOSSES)


@pytest.fixture
def failing(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a command that raises the error of the test's parameter."""
    error: BaseException = request.param

    @click.command("failing", context_settings={"ignore_unknown_options": True})
    @click.argument("ignored", nargs=-1)
    def command(ignored: Any) -> None:
        raise error

    group.add_command(command)
    yield "failing"
    del group.commands["failing"]


DETAILS = {"gradient": float("nan"), "shape": (2, 3)}
ERRORS = [
    (graphfreeze.VerificationError("v", DETAILS), 1),
    (graphfreeze.ValidationError("v", DETAILS), 1),
    (graphfreeze.UsageError("v", DETAILS), 2),
    (graphfreeze.SelectorError("v", DETAILS), 2),
    (graphfreeze.SpecError("v", DETAILS), 2),
    (graphfreeze.DataError("v", DETAILS), 2),
    (graphfreeze.UnsupportedOperationError("v", DETAILS), 3),
    (graphfreeze.UnsupportedVariableUseError("v", DETAILS), 3),
    (graphfreeze.UnsupportedDtypeError("v", DETAILS), 3),
    (graphfreeze.ModelReadError("v", DETAILS), 4),
    (graphfreeze.ArtifactReadError("v", DETAILS), 4),
    (graphfreeze.OutputError("v", DETAILS), 4),
]


@pytest.mark.parametrize(("failing", "code"), ERRORS, indirect=["failing"], ids=lambda e: type(e).__name__)
def test_each_error_has_its_exit_code(
    failing: str, code: int, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    assert run([failing]) == code
    assert capsys.readouterr() == ("", "Error: v\n")
    assert run([failing, "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "schema_version": 1,
        "error": {
            "type": request.node.callspec.id.partition("-")[0],
            "message": "v",
            "exit_code": code,
            "details": {"gradient": "NaN", "shape": [2, 3]},
        },
    }


@pytest.mark.parametrize(
    "failing", [ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow.python")], indirect=True
)
def test_missing_tensorflow_is_exit_2_and_says_how_to_install_it(
    failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([failing]) == 2
    assert "pip install 'graphfreeze[tensorflow]'" in capsys.readouterr().err


@pytest.mark.parametrize("failing", [RuntimeError("odd"), ModuleNotFoundError("odd", name="numpy")], indirect=True)
def test_a_defect_is_exit_70_with_a_traceback_on_request(failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([failing]) == 70
    captured = capsys.readouterr()
    assert "please report it" in captured.err
    assert "Traceback" not in captured.err
    assert run([failing, "-v"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert run([failing, "--json"]) == 70
    assert json.loads(capsys.readouterr().err)["error"]["exit_code"] == 70


@pytest.mark.parametrize("failing", [KeyboardInterrupt()], indirect=True)
def test_ctrl_c_is_exit_130_without_a_traceback(failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([failing]) == 130
    captured = capsys.readouterr()
    assert "Interrupted" in captured.err
    assert "Traceback" not in captured.err


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "graphfreeze", "inspect"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Missing argument 'MODEL'" in result.stderr
