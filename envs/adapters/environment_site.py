"""Somebody else's environments as a site, so that a configuration can name one.

    site: {kind: environment, id: CartPole-v1}
    site: {kind: environment, parallel: mpe2.simple_spread_v3, options: {N: 3, max_cycles: 25}, workers: 2}

The task is ``native``: the environment's own reward and end. The encoder is ``raw``: the observation as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..configuration import Strict, validate
from ..errors import ConfigurationError, MissingExtraError, nearest
from ..nameplate import Nameplate
from .environment_encoder import MASK_PREFIX, MaskedRawEncoder, RawEncoder, RawSettings

if TYPE_CHECKING:
    import torch

    from ..encoder import Encoder
    from ..plant import Plant
    from ..task import Task
    from ..twin import Twin
    from .environment_block import EnvironmentRecipe
    from .environment_pool import MakeBlocks

POOL_ENTRY_POINTS = "twinloop.simulator_pools"


class EnvironmentConfig(Strict):
    """One environment, by Gymnasium's id or as a PettingZoo module."""

    kind: Literal["environment"] = "environment"
    id: str | None = Field(None, description="of a registered Gymnasium environment, such as CartPole-v1")
    parallel: str | None = Field(
        None, description="a PettingZoo module with parallel_env, or module:function, such as mpe2.simple_spread_v3"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the environment")
    horizon: PositiveInt | None = Field(None, description="steps of an episode; absent: as the environment says")
    dt_s: PositiveFloat = Field(1.0, description="what a step is called, in seconds; nothing depends on it")
    unbounded: PositiveFloat = Field(
        1e6, description="range, either way, of signals that the spaces leave unbounded; nothing is clipped to it"
    )
    workers: NonNegativeInt = Field(0, description="Ray actors that share the copies; 0: all in the twin's process")
    save: Literal["auto", "pickle", "replay"] = Field(
        "auto",
        description="how snapshots keep a copy: pickled, or as seed and actions that are replayed; auto: pickled where "
        "that loses nothing",
    )
    early_truncation: Literal["refuse", "terminate"] = Field(
        "refuse", description="what an end before the horizon, by the environment's own limit, is taken for"
    )

    @model_validator(mode="after")
    def _one(self) -> EnvironmentConfig:
        if (self.id is None) == (self.parallel is None):
            raise ValueError("give either id, for Gymnasium, or parallel, for PettingZoo")
        return self


class NoPlant(Strict):
    """Environments exist in the twin alone."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True)
class MakeEnvironmentOf:
    """Makes the environment of a configuration; picklable."""

    config: EnvironmentConfig

    def __call__(self) -> Any:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # else a library greets on every start of a process
        return self._gymnasium() if self.config.id is not None else self._parallel()

    def _gymnasium(self) -> Any:
        import gymnasium

        name = str(self.config.id)
        try:
            return gymnasium.make(name, disable_env_checker=True, **self.config.options)
        except gymnasium.error.DependencyNotInstalled as error:
            raise MissingExtraError(str(error).partition("\n")[0], "tasks", f"site.id {name!r}") from error
        except gymnasium.error.UnregisteredEnv as error:
            raise ConfigurationError(
                f"site.id: {name!r} is not registered with Gymnasium{nearest(name, gymnasium.registry)}; "
                "write package.module:Id-v0 where a package registers it"
            ) from error

    def _parallel(self) -> Any:
        from importlib import import_module

        name = str(self.config.parallel)
        module_name, _, attribute = name.partition(":")
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and module_name.split(".")[0] == error.name:
                raise MissingExtraError(error.name, "tasks", f"site.parallel {name!r}") from error
            raise ConfigurationError(f"site.parallel: {name!r} cannot be imported: {error}") from error
        make = getattr(module, attribute or "parallel_env", None)
        if not callable(make):
            raise ConfigurationError(
                f"site.parallel: {module_name} has no function {attribute or 'parallel_env'!r}; name one after a colon"
            )
        return make(**self.config.options)


def recipe_of(config: EnvironmentConfig) -> EnvironmentRecipe:
    """How copies of the environment of a configuration are made."""
    from .environment_block import EnvironmentRecipe

    return EnvironmentRecipe(
        make=MakeEnvironmentOf(config),
        name=str(config.id or config.parallel),
        horizon=config.horizon,
        dt_s=config.dt_s,
        unbounded=config.unbounded,
        save=config.save,
        early_truncation=config.early_truncation,
    )


class EnvironmentSite:
    """Any Gymnasium or PettingZoo environment."""

    name = "environment"
    summary = "any Gymnasium or PettingZoo environment, many copies as one batched twin"
    config_model: type[BaseModel] = EnvironmentConfig
    plant_config_model: type[BaseModel] = NoPlant
    encodes_every_group = True

    def nameplate(self, config: EnvironmentConfig) -> Nameplate:
        from .environment_block import inspect

        return inspect(recipe_of(config)).nameplate

    def twin(self, config: EnvironmentConfig, n_replicas: int, device: str, dtype: torch.dtype) -> Twin:
        from .environment_block import EnvironmentBlock
        from .environment_pool import EnvironmentPool

        if device != "cpu":
            raise ConfigurationError(f"device: {device!r}; environments run on the CPU, so take cpu")
        make_blocks: MakeBlocks = EnvironmentBlock if config.workers == 0 else _spread(config.workers)
        return EnvironmentPool(recipe_of(config), n_replicas, dtype=dtype, make_blocks=make_blocks)

    def tasks(self) -> tuple[str, ...]:
        return ("native",)

    def task(self, name: str, config: EnvironmentConfig, options: Mapping[str, Any]) -> Task:
        from .environment_block import inspect
        from .environment_pool import NativeTask

        _known("task", name, self.tasks())
        if options:
            raise ConfigurationError(
                f"task.options: {', '.join(sorted(options))}: the task native has none; the environment's own "
                "are site.options, its episode's length is site.horizon"
            )
        return NativeTask(inspect(recipe_of(config)).horizon if config.horizon is None else config.horizon)

    def encoders(self) -> tuple[str, ...]:
        return ("raw",)

    def encoder(self, name: str, nameplate: Nameplate, settings: Mapping[str, Any]) -> Encoder:
        _known("encoder", name, self.encoders())
        chosen = validate(dict(settings), RawSettings, "encoder.settings")
        group = nameplate.group(chosen.group or nameplate.groups[0].name)
        masked = any(s.name.startswith(MASK_PREFIX) for s in group.measured)
        return (MaskedRawEncoder if masked else RawEncoder)(nameplate, chosen)

    def plant(self, config: EnvironmentConfig, plant_config: NoPlant) -> Plant:
        raise ConfigurationError(
            "site environment has no plant: a foreign environment exists in the twin alone; announce a site of your "
            "own with a plant to control one"
        )


def _known(what: str, name: str, allowed: tuple[str, ...]) -> None:
    if name not in allowed:
        raise ConfigurationError(
            f"site 'environment' has no {what} {name!r}; it has {', '.join(allowed)}{nearest(name, allowed)}"
        )


def _spread(n_workers: int) -> MakeBlocks:
    """Blocks in processes of their own; an entry point, because sites know nothing of who trains on them."""
    found = [e for e in entry_points(group=POOL_ENTRY_POINTS) if e.name == "ray"]
    if not found:
        raise ConfigurationError(
            f"site.workers: {n_workers}, but nothing is announced as 'ray' in {POOL_ENTRY_POINTS}; "
            "install twinloop anew, or take workers: 0"
        )
    make: MakeBlocks = found[0].load()(n_workers)
    return make


SITE = EnvironmentSite()
