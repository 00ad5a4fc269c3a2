"""What a site says of its own live twin. A site that says nothing needs no method for it; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from ..errors import ContractError
from ..registry import Site
from .settings import FilterSettings

if TYPE_CHECKING:  # trackers need torch
    from .contract import TrackerMaker


@dataclass(frozen=True)
class TwinPlan:
    """``config``: of the members, the site's model: what may be, not what is; ``n_members`` of them.

    ``tracker``: the site's own way to keep them where the plant is, for state that no mixture of members gives; None:
    the ensemble filter.
    """

    config: BaseModel
    settings: FilterSettings
    n_members: int = 64
    tracker: TrackerMaker | None = None


@runtime_checkable
class HasLiveTwin(Protocol):
    """A site that knows how its plants are tracked: what is measured how well, and what is not known before."""

    def live_twin(self, config: Any, plant_config: Any) -> TwinPlan: ...


def twin_plan_of_site(site: Site, config: Any, plant_config: Any) -> TwinPlan | None:
    """The site's plan for this plant; None for a site that has none, whose file must then say all of it."""
    if not isinstance(site, HasLiveTwin):
        return None
    found = site.live_twin(config, plant_config)
    if not isinstance(found, TwinPlan):
        raise ContractError(f"{site.name}.live_twin gives {type(found).__name__}; give a TwinPlan")
    return found
