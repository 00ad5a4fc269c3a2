"""Whether a number may be a command at all: the same question on both ends of every wire."""

from __future__ import annotations

import math

from ...envs.nameplate import Signal


def command_fault(signal: Signal, value: float) -> str:
    """Why ``value`` is no command for ``signal``; empty for one that may be."""
    if not math.isfinite(value):
        return f"{value} is no number to command"
    if not signal.minimum <= value <= signal.maximum:
        return f"{value:g} {signal.unit} is outside [{signal.minimum:g}, {signal.maximum:g}]"
    if signal.levels is not None and value not in signal.levels:
        return f"{value:g} {signal.unit} is none of {list(signal.levels)}"
    return ""
