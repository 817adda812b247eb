"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

# SIGUSR1 is what schedulers send ahead of a time limit, if asked to; Windows does not have it.
_SIGNALS = tuple(
    sign for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (sign := getattr(signal.Signals, name, None)) is not None
)


class StopRequest:
    """Turns SIGINT, SIGTERM and SIGUSR1 into a note that the loop heeds between steps.

    Launchers pass on a signal that has reached the whole group already, so that it often comes twice: what is asked
    for again changes nothing. Only Ctrl-C again, more than a second later, acts at once.

    Attributes:
        asked: the first of the signals; None as long as there is none.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {sign: signal.signal(sign, self._ask) for sign in _SIGNALS}
        return self

    def _ask(self, number: int, _: object) -> None:
        if self.asked is None:
            self.asked, self._asked_at = signal.Signals(number), time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > 1:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for sign, handler in self._before.items():
            signal.signal(sign, handler)
