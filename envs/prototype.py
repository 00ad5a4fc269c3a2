"""What a site says of its own design: which numbers of it may be chosen, what may be built, and how it is written down.

A site that says nothing is explored by the parameters that its twin declares ``explorable``; no torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from .errors import ConfigurationError
from .registry import Site

if TYPE_CHECKING:
    import torch

    from .twin import Tensors, Twin


@runtime_checkable
class Prototyped(Protocol):
    """A site whose design can be explored and written down.

    ``prototypes``: a twin like :meth:`Site.twin`'s with all that may be chosen among its parameters, ``explorable``;
    what is set acts from the next reset at the latest. ``feasible``: ``[B]`` bool, what could be built of values
    ``[B]`` each (others as configured). ``built``: the configuration of one prototype, with which :meth:`Site.twin`
    and :meth:`Site.plant` make it; it raises the site's own error for what cannot be built.
    """

    def prototypes(self, config: Any, n_replicas: int, device: str, dtype: torch.dtype) -> Twin: ...
    def feasible(self, config: Any, values: Tensors) -> torch.Tensor: ...
    def built(self, config: Any, values: Mapping[str, float]) -> BaseModel: ...


def twin_of_prototypes(site: Site, config: Any, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
    """The site's twin of prototypes; its everyday twin where it has no other."""
    make = site.prototypes if isinstance(site, Prototyped) else site.twin
    return make(config, n_replicas, device, dtype)


def built_by_site(site: Site, config: Any, values: Mapping[str, float]) -> BaseModel:
    """The configuration of one prototype; raises :class:`ConfigurationError` for a site that cannot write one."""
    if not isinstance(site, Prototyped):
        raise ConfigurationError(
            f"site {site.name!r} has no method `built`, which writes a prototype down as a configuration: leave "
            "`verify` out, or give the site one (envs/prototype.py)"
        )
    return site.built(config, values)
