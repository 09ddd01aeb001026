"""Options that several commands share, and the ordered list of --freeze and --train."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from graphfreeze import __version__
from graphfreeze.cli.terminal import Terminal

__all__ = [
    "OrderedSelectionsCommand",
    "common_options",
    "data_option",
    "device_option",
    "ordered_selections",
    "tags_option",
]

Action = Literal["freeze", "train"]
_ACTIONS: tuple[Action, ...] = ("freeze", "train")
_META_KEY = "graphfreeze.selections"


class OrderedSelectionsCommand(click.Command):
    """A command whose --freeze and --train form one list in the order in which they were given: later ones win.

    click collects the values of each option on its own, which loses the order between the two.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note the order, then parse as usual."""
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        remaining = {action: iter(values.get(action) or ()) for action in _ACTIONS}
        given: list[tuple[Action, str]] = []
        for parameter in order:
            given.extend((action, next(remaining[action])) for action in _ACTIONS if parameter.name == action)
        ctx.meta[_META_KEY] = given
        return super().parse_args(ctx, args)


def ordered_selections() -> list[tuple[Action, str]]:
    """The selectors that the running command was given by --freeze and --train, in order, each with its option."""
    given: list[tuple[Action, str]] = click.get_current_context().meta[_META_KEY]
    return given


def common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add --json, -v, -q and --version, and hand the command its `Terminal`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of tables.")
    @click.option("-v", "--verbose", count=True, help="Log what happens on stderr; twice for more.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
    @click.version_option(__version__, prog_name="graphfreeze")
    @functools.wraps(function)
    def with_terminal(*args: Any, as_json: bool, verbose: int, quiet: bool, **options: Any) -> None:
        function(Terminal(as_json=as_json, verbose=verbose, quiet=quiet), *args, **options)

    return with_terminal


def device_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add --device."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        help="Where onnxruntime runs. cuda demands CUDA; auto takes what is there.  [default: auto]",
    )(function)


def tags_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add --tags."""
    return click.option(
        "--tags",
        metavar="TAG[,TAG]",
        help="Of several graphs in MODEL, the one with these tags: names are meant as there.",
    )(function)


def data_option(help_text: str, *, required: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add --data, the `.npz` file (or directory of `.npy`) of the data contract."""
    return click.option(
        "--data", type=click.Path(path_type=Path), required=required, metavar="FILE.npz", help=help_text
    )
