"""What ends a run before its time."""

from __future__ import annotations

import signal


class TrainingError(Exception):
    """A run that cannot start or go on."""


class Interrupted(KeyboardInterrupt):
    """A run that stopped between steps, with a checkpoint, because a signal asked for it.

    Attributes:
        signal: which one; of several processes', the highest.
    """

    def __init__(self, sign: signal.Signals) -> None:
        super().__init__(f"stopped by {sign.name}")
        self.signal = sign
