"""What runs after a write of a variable, and still takes a value that was read before.

The read of a reference is the variable's own memory. Whoever takes it takes what lies there when it runs itself: after
a write that it waits for, the new value. In TensorFlow 1, moving averages of what was just trained are taken so. A
masked read is a computation, and has to happen when its consumer runs.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.handle_flow import Flow
from graphfreeze.savedmodel.main_graph import node_of
from graphfreeze.savedmodel.updates import update_of

__all__ = ["LateConsumers"]


class LateConsumers:
    """The nodes of a main graph that wait for writes.

    Args:
        body: The main graph.
        flow: Where handles and references go in it.
    """

    def __init__(self, body: Body, flow: Flow) -> None:
        self._body = body
        self._flow = flow
        self._found: dict[int, frozenset[int]] = {}

    def of(self, variable: int) -> frozenset[int]:
        """The positions of all nodes that run after any write of a variable, also one that initialises it."""
        if variable not in self._found:
            pending = list(self._writers.get(variable, ()))
            seen: set[int] = set()
            while pending:
                for i in self._followers.get(self._body.nodes[pending.pop()].name, ()):
                    if i not in seen:
                        seen.add(i)
                        pending.append(i)
            self._found[variable] = frozenset(seen)
        return self._found[variable]

    def waits_of(self, i: int, tensor: str) -> list[str]:
        """The control inputs with which a read happens when a node runs that takes a tensor.

        These are all other nodes that it takes something of, and all that it waits for. What merges branches runs as
        soon as it has one of its inputs: it waits for nothing.
        """
        node = self._body.nodes[i]
        if node.op == "Merge":
            return []
        data = [t for t in node.input if not t.startswith("^") and self._body.tensor(t) != tensor]
        controls = [t for t in node.input if t.startswith("^")]
        return list(dict.fromkeys([*(f"^{node_of(t)}" for t in data), *controls]))

    @cached_property
    def _writers(self) -> dict[int, set[int]]:
        found: defaultdict[int, set[int]] = defaultdict(set)
        for i, node in enumerate(self._body.nodes):
            update = update_of(node)
            for position in update.handles if update is not None else ():
                variable = self._flow.handles.get(self._body.tensor(node.input[position]))
                if variable is not None:
                    found[variable].add(i)
        return found

    @cached_property
    def _followers(self) -> dict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self._body.nodes):
            for reference in node.input:
                found[node_of(reference)].append(i)
        return found
