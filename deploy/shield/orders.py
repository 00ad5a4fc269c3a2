"""What people and the grid ask of the shield in one period, and what of it can be believed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .decision import Code, Mode, Reason

Limits2 = tuple[float | None, float | None]
"""Minimum and maximum of a named sum constraint; None: as declared."""

ORDERABLE = (Mode.SHADOW, Mode.ADVISE, Mode.APPROVED, Mode.AUTONOMOUS)
"""The modes that a person may give; the others follow from causes."""


@dataclass(frozen=True)
class Orders:
    """What is asked this period.

    ``mode``: the highest authority given, None leaves it as it is. It is an event: give it in the period in which a
    person asks for it, since a mode that is given again and again takes over as soon as nothing stands against it.
    ``stop``: the emergency stop is held. ``reset``: a person resets what is latched. ``approved``: agents whose
    proposal a person approved, used in ``APPROVED`` only; None is nobody. ``limits``: ends of named sum constraints,
    only ever tightened. ``assets``: the agents that ``mode`` and ``reset`` are for, None is all; a stop is always for
    all. ``manual``: agents that a person commands by hand, whom a failing policy does not send to their fallback.

    Nothing is checked here: :func:`judge` does, inside the shield, and never raises.
    """

    mode: Mode | None = None
    stop: bool = False
    reset: bool = False
    approved: frozenset[str] | None = None
    limits: Mapping[str, Limits2] = field(default_factory=dict)
    assets: frozenset[str] | None = None
    manual: frozenset[str] | None = None


@dataclass(frozen=True)
class Judged:
    """The believable part of :class:`Orders`, with a reason for each part that is not.

    ``raises`` is False where it is unreadable which assets are meant: then authority may be taken, from all, and not
    given. ``empty``: nothing that concerns modes is asked.
    """

    mode: Mode | None = None
    stop: bool = False
    reset: bool = False
    approved: frozenset[str] = frozenset()
    limits: Mapping[str, Limits2] = field(default_factory=dict)
    assets: frozenset[str] | None = None
    raises: bool = True
    reasons: tuple[Reason, ...] = ()
    manual: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        return self.mode is None and not self.stop and not self.reset


NOTHING = Judged()


def judge(orders: Any, agents: Collection[str], sums: Collection[str]) -> Judged:
    """What of ``orders`` can be followed: agents and sum constraints that exist, modes that may be given. Never raises.

    What is not valid is left out, with a reason. The safe side wins: a stop that is neither True nor False counts as
    held, and an approval that cannot be read as nobody's.
    """
    if orders is None:
        return NOTHING
    try:
        if _asks_nothing(orders):
            return NOTHING
        return _judged(orders, agents, sums)
    except Exception:  # noqa: BLE001 - whatever was put in: an order that cannot even be read is no order
        return Judged(reasons=(_invalid("orders"),))


def _asks_nothing(orders: Any) -> bool:
    """Whether these are orders in which everything is left as it is, which nearly all are."""
    return (
        type(orders) is Orders
        and orders.mode is None
        and orders.stop is False
        and orders.reset is False
        and orders.approved is None
        and type(orders.limits) is dict
        and not orders.limits
        and orders.assets is None
        and orders.manual is None
    )


def _judged(orders: Any, agents: Collection[str], sums: Collection[str]) -> Judged:
    if not isinstance(orders, Orders):
        return Judged(reasons=(_invalid("orders"),))
    wrong: list[Reason] = []
    mode = orders.mode
    if mode is not None and not (isinstance(mode, str) and mode in ORDERABLE):
        wrong.append(_invalid("mode"))
        mode = None
    stop, reset = _truth(orders.stop), _truth(orders.reset)
    wrong += [_invalid(name) for name, value in (("stop", stop), ("reset", reset)) if value is None]
    approved = _names(orders.approved, agents, "approved", wrong)
    assets = _names(orders.assets, agents, "assets", wrong)
    manual = _names(orders.manual, agents, "manual", wrong)
    readable = orders.assets is None or assets is not None
    return Judged(
        mode=None if mode is None else Mode(mode),
        stop=stop is not False,
        reset=reset is True and readable,
        approved=approved or frozenset(),
        limits=_limits(orders.limits, sums, wrong),
        assets=assets,
        raises=readable,
        reasons=tuple(wrong),
        manual=manual or frozenset(),
    )


def _truth(raw: Any) -> bool | None:
    return bool(raw) if isinstance(raw, (bool, np.bool_)) else None


def _names(raw: Any, agents: Collection[str], part: str, wrong: list[Reason]) -> frozenset[str] | None:
    """The names that are agents; None where none were given, or what was given is no set of names."""
    if raw is None:
        return None
    if not isinstance(raw, (frozenset, set, tuple, list)):
        wrong.append(_invalid(part))
        return None
    known = frozenset(name for name in raw if isinstance(name, str) and name in agents)
    if len(known) < len(raw):
        wrong.append(_invalid(part))
    return known


def _limits(raw: Any, sums: Collection[str], wrong: list[Reason]) -> dict[str, Limits2]:
    if not isinstance(raw, Mapping):
        wrong.append(_invalid("limits"))
        return {}
    found: dict[str, Limits2] = {}
    for name, ends in raw.items():
        fine = isinstance(name, str) and name in sums and isinstance(ends, (tuple, list)) and len(ends) == 2
        if fine and all(_is_end(end) for end in ends):
            low, high = (None if end is None else float(end) for end in ends)
            if low is None or high is None or low <= high:
                found[name] = (low, high)
                continue
        wrong.append(_invalid("limits", name if isinstance(name, str) else ""))
    return found


def _is_end(raw: Any) -> bool:
    if raw is None:
        return True
    number = isinstance(raw, (int, float, np.integer, np.floating)) and not isinstance(raw, bool)
    return number and math.isfinite(raw)


def _invalid(part: str, constraint: str = "") -> Reason:
    """``part`` of the orders was left out."""
    return Reason("", part, Code.ORDER_INVALID, constraint=constraint)
