"""Training on onnxruntime. Needs no TensorFlow.

```
trainer.py        Trainer: steps, epochs, gradients, predictions, states
train.py          the command
step_bindings.py  the training step's bindings, used in turn
device_state.py   the state on the device, twice
saved_state.py    a state to start from
device_tensor.py  arrays to the device and back
graph_runner.py   any graph of the artifact, once
session.py        sessions
device.py         which device, and why
cuda.py           does CUDA really work here?
placement.py      what ran where
```
"""

from graphfreeze.runtime.device import Device, choose_device
from graphfreeze.runtime.train import train
from graphfreeze.runtime.trainer import BatchGradients, Trainer

__all__ = ["BatchGradients", "Device", "Trainer", "choose_device", "train"]
