"""Operations whose inputs are all known are computed now, by TensorFlow itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from graphfreeze.lowering.eager import execute_operation
from graphfreeze.lowering.misfit import misfit
from graphfreeze.lowering.shapes import signature
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Operation

__all__ = ["Folding"]

_LARGEST = 65536  # elements; larger results are folded only where they do not outgrow their inputs


class Folding:
    """Folds operations, remembering small results."""

    def __init__(self) -> None:
        self._cache: dict[Any, list[npt.NDArray[Any]]] = {}

    def can_fold(self, operation: Operation, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        """Whether all inputs are known, the operation is a pure function, and the result does not grow too large."""
        if not inputs or operation.bodies or any(tensor.known is None for tensor in inputs):
            return False
        if op_def_registry.get(operation.type).is_stateful:
            return False
        limit = max(_LARGEST, *(tensor.size for tensor in inputs))
        return all(tensor.size <= limit and tensor.dtype.kind != "O" for tensor in outputs)

    def fold(self, operation: Operation, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        """Set `known` of the outputs, where their shapes come out as inferred. Returns whether it did."""
        results = self._evaluate_samples(operation, inputs)
        if any(
            result[index].shape != output.shapes[sample]
            for sample, result in enumerate(results)
            for index, output in enumerate(outputs)
        ):
            return False
        for index, output in enumerate(outputs):
            output.known = tuple(result[index] for result in results)
            output.origin = (operation, list(inputs), index)
        return True

    def evaluate(self, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
        """The outputs of an operation whose shapes depend on the values of its inputs, or None where one is unknown."""
        if not self.can_fold(operation, inputs, ()):
            return None
        columns = list(zip(*self._evaluate_samples(operation, inputs), strict=True))
        if any(len({array.ndim for array in column}) > 1 for column in columns):
            return None
        return [Tensor(column[0].dtype, tuple(array.shape for array in column), tuple(column)) for column in columns]

    def _evaluate_samples(self, operation: Operation, inputs: Sequence[Tensor]) -> list[list[npt.NDArray[Any]]]:
        """The outputs' values at each sample batch size."""
        samples = len(inputs[0].shapes)
        if all(tensor.constant is not None for tensor in inputs):
            return [self._evaluate(operation, [tensor.known[0] for tensor in inputs if tensor.known])] * samples
        return [
            self._evaluate(operation, [tensor.known[sample] for tensor in inputs if tensor.known])
            for sample in range(samples)
        ]

    def _evaluate(self, operation: Operation, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        key = None
        if sum(array.size for array in arrays) <= 256:
            key = (signature(operation), tuple((array.dtype, array.shape, array.tobytes()) for array in arrays))
            if key in self._cache:
                return self._cache[key]
        try:
            made = execute_operation(operation, [tf.constant(a) for a in arrays])
        except tf.errors.OpError as error:
            raise misfit(error) from error
        result = [np.asarray(tensor.numpy()) for tensor in made]
        if key is not None:
            self._cache[key] = result
        return result
