"""What `tools/bench training-step` runs.

`worker.py`, `sides/` and `torch_models/` run in the peers' environments: they import neither graphfreeze nor
TensorFlow, except for the two sides that are these.
"""
