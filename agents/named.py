"""Classical controllers by name, for a site as its nameplate tells it: for `run --policy` and `evaluate --against`.

Each fits some sites. Whether it fits one is found by making it: controllers are light.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..envs.errors import ConfigurationError, TwinloopError, nearest

if TYPE_CHECKING:
    from ..envs.nameplate import Nameplate
    from .policy import Policy

POLICIES: Mapping[str, str] = {
    "greedy": "every asset at neutral, on its own controller",
    "random": "anything in range, to see the shield at work",
    "hysteresis": "machines of a row sleep by the buffers beside them, save the slowest",
    "best_age": "machines that wear are serviced at the age at which each alone stands the least",
    "no_avoidance": "arms of a robot cell go straight to their targets; `barrier` is the same",
    "barrier": "straight to the target, kept apart by the shield alone",
    "barrier_retreat": "the same, and an arm drawn at random goes home for a while when one is stuck",
    "nearer_first": "of two near arms, who is farther from its target goes home",
    "priority_stop": "arms nearer than 15 cm to one before them stand",
    "zone_token": "one arm at work, the others at home",
}
"""Names of all sites, each with what it does."""


def names_for(nameplate: Nameplate) -> tuple[str, ...]:
    """Names that fit a site."""
    return tuple(name for name in POLICIES if _fits(name, nameplate))


def named_policy(name: str, nameplate: Nameplate, seed: int = 0) -> Policy:
    """The controller of that name; ``seed`` is for those that draw.

    Raises :class:`ConfigurationError` with the names that fit this site, and why this one doesn't.
    """
    if name not in POLICIES:
        raise ConfigurationError(f"policy {name!r}: not known; {_allowed(nameplate)}{nearest(name, POLICIES)}")
    try:
        return _made(name, nameplate, seed)
    except TwinloopError as error:
        why = str(error).removeprefix(f"policy {name!r}: ").removeprefix(f"{name}: ")
        raise ConfigurationError(f"policy {name!r}: {why}; {_allowed(nameplate)}") from error


def _allowed(nameplate: Nameplate) -> str:
    return f"site {nameplate.site!r} takes {', '.join(names_for(nameplate))}"


def _fits(name: str, nameplate: Nameplate) -> bool:
    try:
        _made(name, nameplate, 0)
    except TwinloopError:
        return False
    return True


def _made(name: str, nameplate: Nameplate, seed: int) -> Policy:
    from .controllers.reference import NeutralPolicy, RandomPolicy

    if name == "greedy":
        return NeutralPolicy(nameplate, name="greedy")
    if name == "random":
        return RandomPolicy(nameplate, seed)
    if name == "best_age":
        from .controllers.line_maintenance import usual_age

        return usual_age(nameplate)
    if name == "hysteresis":
        from .controllers.production_line import usual_hysteresis

        return usual_hysteresis(nameplate)
    from .controllers.robot_cell import cell_controller

    return cell_controller(name, nameplate, seed)
