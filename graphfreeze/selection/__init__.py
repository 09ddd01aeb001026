"""Selector text, specification files and masks, resolved into a freeze plan."""

from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.plan_files import load_plan, save_plan
from graphfreeze.selection.resolve import Selection, resolve_plan
from graphfreeze.selection.spec import Spec, load_spec
from graphfreeze.selection.variable import Variable, VariableSource

__all__ = [
    "FreezePlan",
    "FrozenVariable",
    "Selection",
    "Spec",
    "Variable",
    "VariableSource",
    "load_plan",
    "load_spec",
    "resolve_plan",
    "save_plan",
]
