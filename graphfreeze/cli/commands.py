"""The commands: each one calls the public function of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from graphfreeze import __version__
from graphfreeze.cli import tables
from graphfreeze.cli.options import (
    OrderedSelectionsCommand,
    common_options,
    data_option,
    device_option,
    ordered_selections,
    tags_option,
)
from graphfreeze.cli.terminal import Terminal
from graphfreeze.errors import CheckFailedError, ValidationError

__all__ = ["graphfreeze"]

# What a missing --loss is answered with: the losses of Keras, without importing Keras.
LOSSES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "circle",
    "cosine_similarity",
    "dice",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "tversky",
)

Device = Literal["auto", "cpu", "cuda"]
_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="graphfreeze")
def graphfreeze() -> None:
    """Freeze chosen elements of chosen weights in an exported Keras model; train the rest anywhere onnxruntime runs.

    Exit codes: 0 done; 1 a check failed; 2 wrong usage, selector, specification or data; 3 the model holds something
    not supported; 4 an input is unreadable, or the output cannot be written.
    """


@graphfreeze.command()
@click.argument("model", type=_PATH)
@tags_option
@common_options
def inspect(terminal: Terminal, model: Path, tags: str | None) -> None:
    """List the variables and endpoints of MODEL, a SavedModel or the OUT of a rewrite."""
    with terminal.working():
        from graphfreeze import inspect as public_function

        report = public_function(model, tags=tags)
    terminal.show(report, tables.inspection)


@graphfreeze.command(cls=OrderedSelectionsCommand)
@click.argument("model", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--freeze", multiple=True, metavar="SELECTOR", help="Freeze what SELECTOR names. Repeatable.")
@click.option(
    "--train", multiple=True, metavar="SELECTOR", help="Let train what SELECTOR names. Repeatable; later ones win."
)
@click.option("--spec", type=_PATH, metavar="FILE", help="A TOML file with selectors and options.")
@tags_option
@click.option("--only-in", multiple=True, metavar="ENDPOINT", help="Freeze in this endpoint only. Repeatable.")
@click.option(
    "--form",
    type=click.Choice(["auto", "blend", "select"]),
    help="The masked read: blend is mask*var + stop_gradient((1-mask)*const), select is where().  [default: auto]",
)
@click.option(
    "--loss",
    multiple=True,
    metavar="[OUTPUT=]NAME[:k=v,...][:weight=W]",
    help="A Keras loss by name. Required without --no-onnx. Repeatable: one for each output that has a loss.",
)
@click.option("--sample-weight", is_flag=True, help="The data holds a weight per example: sample_weight.")
@click.option(
    "--optimizer",
    multiple=True,
    metavar="[PATTERN=]NAME[:k=v,...]",
    help="A Keras optimizer by name. Repeatable: with PATTERN for the parameters that it matches, of which later ones "
    "win; without it for all others.  [default: sgd:learning_rate=0.01]",
)
@click.option(
    "--endpoint", metavar="NAME", help="What to train.  [default: serve, else serving_default, else the only one]"
)
@click.option("--forward-endpoint", metavar="NAME", help="What forward.onnx computes.  [default: as --endpoint]")
@click.option("--no-onnx", is_flag=True, help="Rewrite the SavedModel only.")
@click.option("--opset", type=int, help="The opset of the ONNX files, 18 to 26.  [default: 18]")
@data_option("A batch for the checks and the reference.  [default: random, from --seed]")
@click.option("--seed", type=int, help="The seed of random batches.  [default: 0]")
@click.option(
    "--checks",
    type=click.Choice(["full", "static", "none"]),
    help="full runs both models; static proves from the files only.  [default: full]",
)
@device_option
@click.option(
    "--noise",
    type=click.Choice(["exact", "native"]),
    help="exact draws TensorFlow's random numbers; native draws on the device, others in each run.  [default: exact]",
)
@click.option(
    "--keras2",
    type=click.Choice(["refuse", "keep"]),
    help="What tf_keras.models.load_model does with the result: refuse loudly, or keep the freeze.  [default: refuse]",
)
@click.option("--link", is_flag=True, help="Hard-link the checkpoint's existing shards instead of copying them.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its counts, and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing OUT, at the very end.")
@common_options
def rewrite(
    terminal: Terminal,
    model: Path,
    out: Path,
    freeze: tuple[str, ...],
    train: tuple[str, ...],
    no_onnx: bool,
    **options: Any,
) -> None:
    r"""Freeze selected elements of MODEL, and write the result and its ONNX training step to OUT.

    \b
    SELECTOR is VARIABLE [INDEX] [where PREDICATE] [:= VALUE], or VARIABLE @ MASKFILE [:= VALUE]:
      dense/kernel              the whole variable
      'dense/kernel[:, 0:3]'    numpy indexing
      '** where w == 0'         every zero of every trainable variable
      'dense/bias[0] := 1.5'    frozen at another value
    """
    if not freeze and not train and options["spec"] is None:
        raise click.UsageError("Nothing is selected. Give --freeze SELECTOR, --train SELECTOR or --spec FILE.")
    if no_onnx and options["loss"]:
        raise click.UsageError("--loss belongs to the ONNX training step, which --no-onnx leaves out.")
    if not no_onnx and not options["loss"] and options["spec"] is None:
        raise click.UsageError(
            f"The training step needs a loss. Give --loss NAME, a loss of Keras: {', '.join(LOSSES)}; "
            "or --no-onnx, to rewrite the SavedModel only."
        )
    # What was not given stays out, so that the defaults are those of the function, and of the specification.
    given = {name: value for name, value in options.items() if value is not None and value is not False and value != ()}
    if no_onnx:
        given["onnx"] = False
    try:
        with terminal.working() as progress:
            from graphfreeze import Selection
            from graphfreeze import rewrite as public_function

            selections = [Selection(kind, text) for kind, text in ordered_selections()]
            report = public_function(model, out, selections, progress=progress, **given)
    except CheckFailedError as error:
        terminal.show_failure(error.details, tables.rewriting)
        raise
    terminal.show(report, tables.rewriting)


@graphfreeze.command()
@click.argument("original", type=_PATH)
@click.argument("out", type=_PATH)
@common_options
def verify(terminal: Terminal, original: Path, out: Path) -> None:
    """Prove from the files that OUT freezes what its plan says, and is otherwise the SavedModel ORIGINAL."""
    with terminal.working():
        from graphfreeze import verify as public_function

        report = public_function(original, out)
    terminal.show(report, tables.verification)


@graphfreeze.command()
@click.argument("out", type=_PATH)
@device_option
@data_option("A batch whose reference TensorFlow computes now, instead of the stored one.")
@common_options
def validate(terminal: Terminal, out: Path, device: Device | None, data: Path | None) -> None:
    """Compare the gradients and losses of the artifact OUT with TensorFlow's reference, and run its steps.

    Needs no TensorFlow, unless --data is given.
    """
    try:
        with terminal.working():
            from graphfreeze import validate as public_function

            report = public_function(out, device=device or "auto", data=data)
    except ValidationError as error:
        terminal.show_failure(error.details, tables.validation)
        raise
    terminal.show(report, tables.validation)


@graphfreeze.command()
@click.argument("out", type=_PATH)
@data_option("The training data: one array per input, and y.", required=True)
@click.option("--epochs", type=click.IntRange(min=1), required=True, metavar="N", help="How often to go over the data.")
@click.option("--batch-size", type=click.IntRange(min=1), required=True, metavar="N", help="Examples per step.")
@device_option
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the shuffling.")
@click.option(
    "--save",
    type=_PATH,
    metavar="FILE",
    help="Where the trained state goes.  [default: OUT/training/trained.safetensors]",
)
@common_options
def train(
    terminal: Terminal,
    out: Path,
    data: Path,
    epochs: int,
    batch_size: int,
    device: Device | None,
    seed: int,
    save: Path | None,
) -> None:
    """Train the artifact OUT with onnxruntime. Needs no TensorFlow."""
    with terminal.working() as progress:
        from graphfreeze import train as public_function

        report = public_function(
            out,
            data,
            epochs=epochs,
            batch_size=batch_size,
            device=device or "auto",
            save=save,
            seed=seed,
            progress=progress,
        )
    terminal.show(report, tables.training)


@graphfreeze.command()
@click.argument("out", type=_PATH)
@click.argument("deploy", type=_PATH)
@click.option(
    "--state",
    type=_PATH,
    metavar="STATE",
    help="The trained state: a state file, a TensorFlow checkpoint of the loaded OUT/saved_model, or that model "
    "saved again.  [default: OUT/training/trained.safetensors]",
)
@click.option(
    "--weights",
    type=click.Choice(["averages", "last"]),
    help="Of a state file: the averages that an optimizer with use_ema keeps, or the weights after the last step.  "
    "[default: averages, where there are some, as in Keras' fit]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing DEPLOY, at the very end.")
@common_options
def fold(
    terminal: Terminal,
    out: Path,
    deploy: Path,
    state: Path | None,
    weights: Literal["averages", "last"] | None,
    overwrite: bool,
) -> None:
    """Write DEPLOY: the original SavedModel with the trained and frozen weights merged, and nothing added.

    Where OUT has a training step, DEPLOY/model.onnx is the same for inference with ONNX.
    """
    with terminal.working():
        from graphfreeze import fold as public_function

        report = public_function(out, deploy, state=state, weights=weights, overwrite=overwrite)
    terminal.show(report, tables.folding)


@graphfreeze.command()
@click.argument("model", type=_PATH)
@click.argument("saved_model", type=_PATH)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of layers that have none in the file.")
@click.option("--overwrite", is_flag=True, help="Replace an existing SAVED_MODEL, at the very end.")
@common_options
def export(terminal: Terminal, model: Path, saved_model: Path, seed: int, overwrite: bool) -> None:
    """Write the Keras file MODEL (.keras, .h5) as SAVED_MODEL, with the endpoints serve and train.

    Nothing that the file brings along is run. The endpoint train computes as Keras' fit does: dropout, noise and batch
    statistics are on, and what the model adds to the loss is part of the step. Use it by rewrite --endpoint train.
    """
    with terminal.working():
        from graphfreeze import export as public_function

        report = public_function(model, saved_model, seed=seed, overwrite=overwrite)
    terminal.show(report, tables.exporting)
