"""Find sites by name, without importing any simulator.

A site is one object with the methods of :class:`Site`, announced in the entry-point group
``twinloop.sites``, so that another package can add one. Loading the object must be cheap: simulators and
torch are imported inside its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from .errors import ContractError, UnknownSiteError, nearest
from .nameplate import Nameplate

if TYPE_CHECKING:
    import torch

    from .encoder import Encoder
    from .plant import Plant
    from .task import Task
    from .twin import Twin

ENTRY_POINT_GROUP = "twinloop.sites"


@runtime_checkable
class Site(Protocol):
    """What a site offers. ``config_model`` is a frozen pydantic model with unknown keys forbidden; every other
    method takes an instance of it."""

    name: str
    summary: str
    config_model: type[BaseModel]
    plant_config_model: type[BaseModel]

    def nameplate(self, config: Any) -> Nameplate: ...
    def twin(self, config: Any, n_replicas: int, device: str, dtype: torch.dtype) -> Twin: ...
    def tasks(self) -> tuple[str, ...]: ...
    def task(self, name: str, config: Any, options: Mapping[str, Any]) -> Task: ...
    def encoders(self) -> tuple[str, ...]: ...
    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder: ...
    def plant(self, config: Any, plant_config: Any) -> Plant: ...


def site_names() -> tuple[str, ...]:
    """Names of all installed sites, sorted."""
    return tuple(sorted(_announced()))


def load_site(name: str) -> Site:
    """Return the site of that name; raises :class:`UnknownSiteError` with the nearest name."""
    announced = _announced()
    if name not in announced:
        raise UnknownSiteError(
            f"site {name!r} is not installed; installed sites: {', '.join(sorted(announced)) or 'none'}"
            f"{nearest(name, announced)}"
        )
    site = announced[name].load()
    if not isinstance(site, Site):
        kind = type(site).__name__
        raise ContractError(f"entry point {name!r} in {ENTRY_POINT_GROUP} gives {kind}, which is no Site")
    return site


def _announced() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}
