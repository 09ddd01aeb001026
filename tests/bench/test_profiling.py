from __future__ import annotations

from typing import Any

from tools.bench_cases.profiling import summarise_events


def event(name: str, operator: str, microseconds: int, category: str = "Node") -> dict[str, Any]:
    arguments = {
        "op_name": operator,
        "input_type_shape": [{"float": [2, 3]}, {"float": [3]}],
        "output_type_shape": [{"float": [2, 3]}],
    }
    return {"cat": category, "name": f"{name}_kernel_time", "dur": microseconds, "args": arguments}


def test_the_fastest_runs_count_and_the_slowest_node_is_named() -> None:
    events = [
        *(event("a", "Mul", dur) for dur in (9000, 1000, 2000)),
        *(event("b", "Mul", dur) for dur in (3000, 9000, 4000)),
        *(event("c", "Add", dur) for dur in (9000, 1000, 2000)),
        {"cat": "Session", "name": "model_run", "dur": 1},
    ]
    mul, add = summarise_events(events, 3)
    assert (mul.operator, mul.count, mul.milliseconds, mul.share) == ("Mul", 2, 4.0, 0.8)
    assert mul.slowest == "[2,3] [3] -> [2,3]: 3.00 ms"
    assert (add.operator, add.milliseconds) == ("Add", 1.0)


def test_a_body_counts_all_its_runs_and_its_loop_none() -> None:
    events = [event("body", "Add", 500) for _ in range(3 * 10)] + [event("loop", "Loop", 9000) for _ in range(3)]
    (line,) = summarise_events(events, 3)
    assert (line.operator, line.count, line.milliseconds) == ("Add", 1, 5.0)
