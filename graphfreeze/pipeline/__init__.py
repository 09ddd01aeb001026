"""The commands that read models: inspect, rewrite, verify and validate."""

from graphfreeze.pipeline.inspecting import inspect
from graphfreeze.pipeline.rewriting import rewrite
from graphfreeze.pipeline.validating import validate
from graphfreeze.pipeline.verifying import verify

__all__ = ["inspect", "rewrite", "validate", "verify"]
