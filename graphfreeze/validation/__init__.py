"""Evidence that an artifact is right, against TensorFlow's stored reference. Needs no TensorFlow.

```
validate.py     the command: all checks, one report
tolerance.py    when are two gradients the same up to rounding?
gradients.py    loss and gradients
steps.py        frozen elements keep their bits, the others move
composition.py  train_step is gradients and apply_gradients
devices.py      what ran where
check.py        the outcome of one check
```
"""

from graphfreeze.validation.validate import validate

__all__ = ["validate"]
