"""All cases, cheapest first."""

from __future__ import annotations

from tools.coverage_cases.activations import activation_cases
from tools.coverage_cases.applications import application_cases
from tools.coverage_cases.augmentation import augmentation_cases
from tools.coverage_cases.case import Case
from tools.coverage_cases.composite_layers import composite_layer_cases
from tools.coverage_cases.hub import hub_cases
from tools.coverage_cases.layer_options import layer_option_cases
from tools.coverage_cases.layers import LEFT_OUT, layer_cases
from tools.coverage_cases.losses import loss_cases
from tools.coverage_cases.optimizers import optimizer_cases
from tools.coverage_cases.precision import precision_cases
from tools.coverage_cases.quantised import quantised_cases
from tools.coverage_cases.saves import keras_2_cases, module_cases
from tools.coverage_cases.sequence_options import sequence_option_cases

__all__ = ["all_cases", "left_out"]


def all_cases() -> list[Case]:
    """Every case."""
    return [
        *loss_cases(),
        *activation_cases(),
        *optimizer_cases(),
        *layer_cases(),
        *composite_layer_cases(),
        *layer_option_cases(),
        *sequence_option_cases(),
        *augmentation_cases(),
        *precision_cases(),
        *quantised_cases(),
        *application_cases(),
        *hub_cases(),
        *keras_2_cases(),
        *module_cases(),
    ]


def left_out() -> list[tuple[str, str]]:
    """What has no case, and why."""
    return [(f"keras.layers.{name}", why) for name, why in LEFT_OUT.items()]
