"""The artifact on disk: written from ONNX models, state and reference, and read back. Needs no TensorFlow.

```
manifest.py       what an artifact says about itself, typed
manifest_json.py  ... and as JSON, strictly
writer.py         models, state, reference -> files
reader.py         files -> Artifact
constants.py      large constants, shared by the ONNX files
tensors.py        safetensors
layout.py         TensorFlow's layout and the stored one
consistency.py    do manifest, graphs, state and reference agree?
frozen.py         the frozen elements, from the plan beside the artifact
data.py           the data contract
inspect.py        a summary
```
"""

from graphfreeze.artifact.data import Dataset, DataSource, load_data
from graphfreeze.artifact.frozen import FrozenElements, FrozenParameter, read_frozen_elements
from graphfreeze.artifact.inspect import inspect_artifact
from graphfreeze.artifact.manifest import (
    BatchEntry,
    Configuration,
    FrozenEntry,
    GraphEntry,
    Manifest,
    SlicesEntry,
    StateEntry,
)
from graphfreeze.artifact.reader import Artifact, read_artifact
from graphfreeze.artifact.writer import write_artifact

__all__ = [
    "Artifact",
    "BatchEntry",
    "Configuration",
    "DataSource",
    "Dataset",
    "FrozenElements",
    "FrozenEntry",
    "FrozenParameter",
    "GraphEntry",
    "Manifest",
    "SlicesEntry",
    "StateEntry",
    "inspect_artifact",
    "load_data",
    "read_artifact",
    "read_frozen_elements",
    "write_artifact",
]
