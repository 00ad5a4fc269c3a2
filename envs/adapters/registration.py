"""Installed sites under Gymnasium ids: ``twinloop/WindFarm-v0`` for the site ``wind_farm``, and so on.

Gymnasium 1.x looks for no plugins; a package's ids are known once they are registered, which :func:`register` does.
It imports Gymnasium and nothing else: twins and simulators wait for ``gymnasium.make``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from ..configuration import validate
from ..errors import ConfigurationError
from ..registry import Site, load_site, site_names

if TYPE_CHECKING:
    from ..task import Task
    from ..twin import Twin
    from .gymnasium_env import TwinEnv
    from .vector_env import TwinVectorEnv

NAMESPACE = "twinloop"


def environment_id(site: str) -> str:
    """Gymnasium id of a site.

    >>> environment_id("wind_farm")
    'twinloop/WindFarm-v0'
    """
    return f"{NAMESPACE}/{''.join(word.capitalize() for word in site.split('_'))}-v0"


def register() -> None:
    """Register every installed site with Gymnasium; ids that are there already stay as they are."""
    import gymnasium

    for site in site_names():
        name = environment_id(site)
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=f"{__name__}:make_env",
                vector_entry_point=f"{__name__}:make_vector_env",
                kwargs={"site": site},
            )


def make_env(
    site: str,
    config: BaseModel | Mapping[str, Any] | None = None,
    *,
    task: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    device: str = "cpu",
    normalised_actions: bool = False,
    render_mode: str | None = None,
) -> TwinEnv:
    """What ``gymnasium.make`` calls; its keywords are these.

    ``config``: the site's configuration, as its model or as a mapping with the same keys; ``task``: the site's first
    when None; ``device``: of the twin. Raises :class:`~twinloop.envs.errors.ConfigurationError` for keys or values that
    can't be used.
    """
    from .gymnasium_env import TwinEnv

    twin, chosen = _build(site, config, task, task_options, dtype, device, 1)
    return TwinEnv(twin, chosen, normalised_actions=normalised_actions, render_mode=render_mode)


def make_vector_env(
    site: str,
    config: BaseModel | Mapping[str, Any] | None = None,
    *,
    num_envs: int = 1,
    task: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    device: str = "cpu",
    normalised_actions: bool = False,
    autoreset_mode: str = "NextStep",
) -> TwinVectorEnv:
    """What ``gymnasium.make_vec`` calls: ``num_envs`` replicas of one twin; keywords as of :func:`make_env`.

    ``autoreset_mode``: ``NextStep``, ``SameStep`` or ``Disabled``.
    """
    from .vector_env import TwinVectorEnv

    twin, chosen = _build(site, config, task, task_options, dtype, device, num_envs)
    return TwinVectorEnv(twin, chosen, normalised_actions=normalised_actions, autoreset_mode=autoreset_mode)


def _build(
    name: str,
    config: BaseModel | Mapping[str, Any] | None,
    task: str | None,
    task_options: Mapping[str, Any] | None,
    dtype: str,
    device: str,
    n_replicas: int,
) -> tuple[Twin, Task]:
    import torch

    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if dtype not in dtypes:
        raise ConfigurationError(f"{environment_id(name)}: dtype {dtype!r}; must be one of {', '.join(dtypes)}")
    site = load_site(name)
    model = _configuration(site, config)
    twin = site.twin(model, n_replicas, device, dtypes[dtype])
    return twin, site.task(site.tasks()[0] if task is None else task, model, task_options or {})


def _configuration(site: Site, config: BaseModel | Mapping[str, Any] | None) -> BaseModel:
    if isinstance(config, site.config_model):
        return config
    if config is None or isinstance(config, Mapping):
        return validate(config or {}, site.config_model, f"{environment_id(site.name)}: config")
    raise ConfigurationError(
        f"{environment_id(site.name)}: config is a {type(config).__name__}; "
        f"give a mapping or a {site.config_model.__name__}"
    )
