"""Signals that end a process: they unwind the stack, so that cleaning up happens, and never interrupt that."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

__all__ = ["Interruption", "signals_ignored"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Interruption:
    """Within this context SIGINT, SIGTERM and SIGHUP raise, where nobody else handles them.

    The signal is remembered too: an exception raised while a destructor or a callback from C runs is dropped, or
    turned into another one, and then the work would go on as if nothing had happened. Nor is it shown as ignored.
    """

    def __init__(self) -> None:
        self._received: BaseException | None = None
        self._replaced: dict[signal.Signals, Any] = {}
        self._show_unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        for number in _SIGNALS if _in_main_thread() else ():
            handler = signal.getsignal(number)
            if handler in _DEFAULTS:
                self._replaced[number] = handler
                signal.signal(number, self._receive)
        if self._replaced:
            self._show_unraisable, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        if self._replaced:
            sys.unraisablehook = self._show_unraisable

    def raise_if_received(self) -> None:
        """Raise KeyboardInterrupt (SIGINT) or SystemExit if a signal has come."""
        if self._received is not None:
            raise self._received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        raise self._received

    def _unraisable(self, dropped: Any) -> None:
        if self._received is None or dropped.exc_value is not self._received:
            self._show_unraisable(dropped)


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP for a short while that must not be interrupted."""
    watched = _SIGNALS if _in_main_thread() else ()
    # getsignal is None for a handler that was not installed from Python, which could not be put back.
    before = {number: handler for number in watched if (handler := signal.getsignal(number)) is not None}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
