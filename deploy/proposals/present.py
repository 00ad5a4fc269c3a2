"""What a station says of now: which policy runs, and what the plant obeys; for the processes beside control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...agents.policy import Policy
from ...envs.errors import ConfigurationError
from ...envs.nameplate import Nameplate
from ..station.folder import StationFolder, read_whole
from .propose import Today

_ON_POLICY = frozenset({"autonomous", "degraded"})


def today_of(station: StationFolder, nameplate: Nameplate) -> Today:
    """Today's policy, where all assets are left to it; else what the plant obeys, held.

    Raises :class:`ConfigurationError` where control is not running or has told nothing of what the plant obeys.
    """
    control, state = _read(station.control), _read(station.state)
    if control is None or state is None:
        missing = station.control if control is None else station.state
        raise ConfigurationError(f"{missing}: there is none; start `twinloop run --station {station.path}`")
    accepted = accepted_of(state, nameplate)
    if accepted is None:
        raise ConfigurationError(f"{station.state}: does not say yet what the plant obeys; try again in a period")
    modes = state.get("modes")
    runs = isinstance(modes, Mapping) and modes and all(mode in _ON_POLICY for mode in modes.values())
    told = control.get("policy")
    if not runs or not isinstance(told, Mapping):
        return Today(accepted)
    return Today(accepted, _policy(str(told.get("path") or ""), str(told.get("name") or ""), nameplate))


def accepted_of(state: Mapping[str, Any], nameplate: Nameplate) -> dict[str, Any] | None:
    """Commands ``[N, A]`` a group that the plant accepted last, or else was sent; None where neither is told."""
    found = {}
    for group in nameplate.groups:
        told = (state.get("groups") or {}).get(group.name) or {}
        columns = []
        for signal in group.commanded:
            column = (told.get("accepted") or {}).get(signal.name) or (told.get("sent") or {}).get(signal.name)
            try:
                values = np.array(column, dtype=np.float64)
            except (TypeError, ValueError):
                return None
            if values.shape != (group.n_assets,) or not np.isfinite(values).all():
                return None
            columns.append(values)
        found[group.name] = np.stack(columns, axis=-1) if columns else np.zeros((group.n_assets, 0))
    return found


def _policy(path: str, name: str, nameplate: Nameplate) -> Policy | None:
    if path:
        from ...agents.artifact import load_artifact

        return load_artifact(Path(path), nameplate)
    from ...agents.controllers.reference import NeutralPolicy

    return NeutralPolicy(nameplate, name=name) if name == "greedy" else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_whole(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}); is control running?") from error
