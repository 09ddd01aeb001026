from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from graphfreeze.artifact.reader import read_artifact
from graphfreeze.errors import ValidationError
from graphfreeze.runtime.cuda import CUDA_PROVIDER
from graphfreeze.runtime.device import CPU_PROVIDER, Device, choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.runtime.placement import Kernel, Placement
from tests.artifact.toy import STATE, random_batch, stored

CUDA = Device("cuda", "requested")


def kernel(name: str, provider: str, inputs: str = "float", outputs: str = "float", operator: str = "Add") -> Kernel:
    return Kernel(name, operator, provider, (inputs,), (outputs,))


def place(*kernels: Kernel, device: Device = CUDA, host_side: tuple[str, ...] = ()) -> Placement:
    return Placement("train_step.onnx", device, {}, kernels, host_side)


def test_what_ran_is_read_from_onnxruntimes_own_records(out: Path) -> None:
    runner = GraphRunner(read_artifact(out), "train_step", choose_device("cpu"))
    placement = runner.placement({**stored(STATE), **random_batch(3)})
    (counts,) = placement.assigned.values()
    assert counts["Where"] == 1
    assert counts["Size"] == 1
    assert {k.provider for k in placement.kernels} == {CPU_PROVIDER}
    floats = {k.operator: k.carries_floats for k in placement.kernels if k.name.startswith(("Size", "Where", "MatMul"))}
    assert floats == {"Size": False, "Where": True, "MatMul": True}
    # The seed's Add and its Casts compute with integers, the count's Cast makes a float.
    casts = sorted((k.output_types[0], k.carries_floats) for k in placement.kernels if k.operator == "Cast")
    assert casts == [("float", True), ("int64", False), ("uint32", False)]
    placement.check()
    assert placement.report()["nodes"] == {CPU_PROVIDER: sum(counts.values())}


def test_floating_point_work_on_the_cpu_is_refused_by_name() -> None:
    placement = place(kernel("a", CUDA_PROVIDER), kernel("norm/Erf", CPU_PROVIDER, operator="Erf"))
    with pytest.raises(ValidationError, match=r"1 nodes with floating-point data .* norm/Erf \(Erf\)"):
        placement.check()


@pytest.mark.parametrize(
    "on_host",
    [
        kernel("shape", CPU_PROVIDER, "float", "int64", "Shape"),
        kernel("index", CPU_PROVIDER, "int64", "int64"),
        kernel("listed", CPU_PROVIDER),
    ],
)
def test_shapes_integers_and_listed_nodes_may_run_on_the_cpu_and_are_reported(on_host: Kernel) -> None:
    placement = place(kernel("a", CUDA_PROVIDER), on_host, host_side=("listed",))
    placement.check()
    assert [k["name"] for k in placement.report()["on_host"]] == [on_host.name]


def test_a_comparison_of_floats_carries_floats() -> None:
    assert kernel("x", CPU_PROVIDER, "float16", "bool", "Greater").carries_floats
    assert kernel("x", CPU_PROVIDER, "int64", "double", "Cast").carries_floats


def test_a_graph_of_which_nothing_ran_on_the_device_is_refused() -> None:
    with pytest.raises(ValidationError, match="no node ran on cuda"):
        place(kernel("index", CPU_PROVIDER, "int64", "int64")).check()


def test_on_the_cpu_nothing_is_misplaced() -> None:
    placement = place(kernel("a", CPU_PROVIDER), device=Device("cpu", "requested"))
    placement.check()
    assert placement.report()["on_host"] == []


def test_counts_are_per_provider_and_operator() -> None:
    placement = Placement("g", CUDA, {CUDA_PROVIDER: Counter(Conv=2, Add=1), CPU_PROVIDER: Counter(Shape=1)}, ())
    assert placement.report()["nodes"] == {CPU_PROVIDER: 1, CUDA_PROVIDER: 3}
    assert placement.report()["operators"][CUDA_PROVIDER] == {"Add": 1, "Conv": 2}
