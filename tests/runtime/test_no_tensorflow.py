from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
# An import of a module that is None here raises ImportError, as if it were not installed.
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "tf_keras")))

from pathlib import Path
import graphfreeze
from graphfreeze.artifact import inspect_artifact
from tests.artifact.toy import random_batch, write_toy

out = write_toy(Path(sys.argv[1]))
assert inspect_artifact(out)["frozen_elements"] == 393
assert graphfreeze.train(out, random_batch(20), epochs=2, batch_size=8, device="cpu")["frozen_elements_changed"] == 0
trainer = graphfreeze.Trainer(out, device="cpu", state=out / "training" / "trained.safetensors")
assert trainer.predict({"image": random_batch(2)["image"]})["prediction"].shape == (2, 128)
from graphfreeze.validation import validate
assert validate(out, device="cpu")["passed"]
assert not any(name.startswith(("tensorflow.", "keras.", "tf_keras.")) for name in sys.modules)
print("done")
"""


def test_an_artifact_trains_and_validates_where_tensorflow_cannot_be_imported(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "out")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (result.stdout.strip(), result.stderr) == ("done", "")
