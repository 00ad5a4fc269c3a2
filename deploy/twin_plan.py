"""The live twin of a plant, as the plant's file and its site describe it; and the one that a station's process keeps.

The file's section ``live_twin``, and a file of the same keys given with ``--settings``, stand above what the site
offers: ``members``, ``site`` (what the members' configuration has other than the plant's), and every key of
:class:`~.live_twin.LiveTwinSettings`; ``signals`` and ``parameters`` are given as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field, PositiveInt

from ..envs.configuration import KIND, load_mapping, validate
from ..envs.errors import ConfigurationError, located
from ..envs.estimation.site import twin_plan_of_site
from ..envs.plant_file import plant_of
from ..envs.registry import Site
from .live_twin import LiveTwin, LiveTwinSettings, make_live_twin
from .station.folder import StationFolder, read_whole
from .twin_verdict import TwinFolder

if TYPE_CHECKING:
    from ..envs.estimation.contract import TrackerMaker

SECTION = "live_twin"


class LiveTwinSection(LiveTwinSettings):
    """What the section ``live_twin`` of a plant's file may say."""

    members: PositiveInt = Field(64, ge=3, description="replicas; more where more is unknown")
    site: dict[str, Any] = Field(default_factory=dict, description="above the plant's own site section")


class LoadedTwin(NamedTuple):
    """A live twin at the plant's state, its site, and the site's configuration of the plant's file."""

    live: LiveTwin
    site: Site
    site_config: BaseModel


@dataclass(frozen=True)
class TwinDescription:
    """All that a live twin is made from: ``config`` of its members, ``settings`` of its filter and gate."""

    site: Site
    site_config: BaseModel
    config: BaseModel
    n_members: int
    settings: LiveTwinSettings
    tracker: TrackerMaker | None = None

    def make(self) -> LiveTwin:
        """A live twin that has not started; raises what :class:`LiveTwin` raises, and for members that do not look like
        the plant :class:`ConfigurationError`."""
        theirs, ours = self.site.nameplate(self.config), self.site.nameplate(self.site_config)
        if theirs.hash != ours.hash:
            raise ConfigurationError(
                f"{SECTION}.site: the members are another plant than the file's: "
                f"{'; '.join(theirs.differences(ours)) or 'their nameplates differ'}; keep what a nameplate says"
            )
        return make_live_twin(self.site, self.config, self.n_members, self.settings, self.tracker)


def describe(
    plant_file: str | Path, overrides: Sequence[str] = (), settings_file: str | Path | None = None
) -> TwinDescription:
    """Read it all; raises :class:`ConfigurationError` naming file and key."""
    data, where = load_mapping(plant_file, overrides), str(plant_file)
    site, site_config, plant_config = plant_of(data, where)
    given: dict[str, Any] = dict(data.get(SECTION) or {})
    told = f"{where}: {SECTION}"
    if settings_file is not None:
        given |= load_mapping(settings_file)
        told = str(settings_file)
    plan = twin_plan_of_site(site, site_config, plant_config)
    if plan is None and "signals" not in given:
        raise ConfigurationError(
            f"{told}: site {site.name!r} does not say how its plants are tracked: give at least signals: "
            "{group/signal: {noise: ...}}, see docs/live_twin.md"
        )
    offered: dict[str, Any] = {}
    if plan is not None:
        offered = plan.settings.model_dump(exclude_unset=True) | {"members": plan.n_members}
    section = validate(offered | given, LiveTwinSection, told)
    config = site_config if plan is None else plan.config
    if section.site:
        config = validate(_merged(config.model_dump(), section.site), type(config), f"{told}.site")
    settings = LiveTwinSettings(**section.model_dump(exclude={"members", "site"}))
    with located(f"{told}.site"):
        site.nameplate(config)
    tracker = None if plan is None else plan.tracker
    return TwinDescription(site, site_config, config, section.members, settings, tracker)


def load_live_twin(
    station: StationFolder,
    plant_file: str | Path,
    overrides: Sequence[str] = (),
    settings_file: str | Path | None = None,
) -> LoadedTwin:
    """The live twin as the station's process left it last.

    ``live.verdict()`` is closed, with the reason, where that process says so, is behind, or has not written for long.
    Raises :class:`ConfigurationError` for a station without one, :class:`~twinloop.envs.errors.ContractError` for the
    state of another twin than the files describe.
    """
    described = describe(plant_file, overrides, settings_file)
    folder = TwinFolder(station)
    if not folder.state.exists():
        raise ConfigurationError(
            f"{folder.state}: there is no live twin; start "
            f"`twinloop twin --station {station.path} --plant {plant_file}`"
        )
    live = described.make()
    live.load(folder.state)
    live.objection = _objection(folder)
    return LoadedTwin(live, described.site, described.site_config)


def _objection(folder: TwinFolder) -> str:
    """What the process says against its own twin, beyond what the gate knows itself."""
    try:
        told = read_whole(folder.verdict)
    except ValueError as error:
        return f"{folder.verdict.name} cannot be read ({error})"
    if told is None:
        return f"there is no {folder.verdict.name}"
    silent_s = time.time() - float(told.get("utc_s", 0.0))
    most_s = float(told.get("stale_after_s", 0.0))
    if silent_s > most_s:
        return f"the live twin's process has written nothing for {silent_s:.0f} s; is `twinloop twin` running?"
    return str(told.get("objection", ""))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, key by key; another ``kind`` replaces as a whole."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            another = KIND in value and value[KIND] != old.get(KIND)
            value = value if another else _merged(old, value)
        found[key] = value
    return found
