"""Names of a signal's levels, as its description has them: "0 off, 1 stand-by, 2 on", or "1 while a door is open".

A nameplate's hash ties policies and journals to it, so names have no field of their own: who describes levels so has
named them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from .nameplate import Signal

_LIST = re.compile(r"(?:^|: )(\d+ [^,;:]+(?:, \d+ [^,;:]+)+)")
_SWITCH = re.compile(r"1 (?:while|when) ")
_PURE = ("", "1", "pu")


@lru_cache(maxsize=4096)
def level_names(signal: Signal) -> Mapping[int, str]:
    """By level; empty where the description names none, for units of something, and for levels outside its range.

    Example::

        level_names(Signal("mode", "1", 0.0, 2.0, "0 off, 1 stand-by, 2 on"))  # {0: "off", 1: "stand-by", 2: "on"}
    """
    if signal.unit not in _PURE:
        return {}
    if _SWITCH.match(signal.description):
        return {0: "no", 1: "yes"} if (signal.minimum, signal.maximum) == (0.0, 1.0) else {}
    found = _LIST.search(signal.description)
    if found is None:
        return {}
    pairs = (entry.split(" ", 1) for entry in found[1].split(", "))
    names = {int(level): name.strip() for level, name in pairs}
    return names if all(signal.minimum <= level <= signal.maximum for level in names) else {}
