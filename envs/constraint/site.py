"""The declaration of a registered site. A site that adds nothing needs no method for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ..registry import Site
from .declaration import Declaration, declare
from .kinds import Constraint
from .safe_state import SafeState


@runtime_checkable
class HasConstraints(Protocol):
    """A site that declares more than its nameplate implies."""

    def constraints(self, config: Any) -> tuple[Constraint, ...]: ...


@runtime_checkable
class HasSafeStates(Protocol):
    """A site whose assets have safe states other than neutral; keys are a group or ``group/asset``."""

    def safe_states(self, config: Any) -> Mapping[str, SafeState]: ...


def constraints_of_site(site: Site, config: Any) -> tuple[Constraint, ...]:
    """What the site adds to its nameplate under this configuration; empty for a site that declares nothing."""
    return site.constraints(config) if isinstance(site, HasConstraints) else ()


def declaration_of_site(site: Site, config: Any) -> Declaration:
    """The checked whole; raises :class:`~twinloop.envs.errors.ConfigurationError` with all its faults."""
    states = site.safe_states(config) if isinstance(site, HasSafeStates) else {}
    return declare(site.nameplate(config), constraints_of_site(site, config), states)
