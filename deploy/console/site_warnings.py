"""What a site itself warns of, as conditions of alarms: an asset that may fail, and the like."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...envs.errors import TwinloopError, UnknownSiteError
from ...envs.nameplate import Nameplate
from ...envs.registry import load_site
from ...envs.warning import Warns
from .alarm_book import Condition, Priority
from .sheet import Sheet

_LOG = logging.getLogger(__name__)
_GOOD = 0
_PRIORITIES: Mapping[str, Priority] = {"medium": Priority.MEDIUM, "low": Priority.LOW}


class SiteWarnings:
    """Asks the site of the run that is on; a site that is not installed here, or that fails, warns of nothing."""

    def __init__(self) -> None:
        self._plate: Nameplate | None = None
        self._site: Warns | None = None

    def conditions(self, sheet: Sheet, state: Mapping[str, Any]) -> list[Condition]:
        """Never raises: alarms of other causes must go on."""
        if state.get("ended"):
            return []
        if self._plate is not sheet.nameplate:
            self._plate, self._site = sheet.nameplate, _site_of(sheet.nameplate)
        if self._site is None:
            return []
        try:
            found = self._site.warnings(sheet.nameplate, _measured(sheet.nameplate, state))
            return [
                Condition(f"{w.agent}/{w.key}", _PRIORITIES[w.severity], w.text, w.agent)
                for w in found
                if w.agent in sheet.agents
            ]
        except Exception:  # noqa: BLE001 - a site's own code; what it can't tell costs no other alarm
            _LOG.exception("site %s: warnings can't be made; none until the next run", sheet.nameplate.site)
            self._site = None
            return []


def _site_of(nameplate: Nameplate) -> Warns | None:
    """The site of a nameplate, by its label ``kind`` or else its name, as artifacts have it."""
    try:
        site = load_site(nameplate.labels.get("kind") or nameplate.site)
    except UnknownSiteError:
        return None
    except (TwinloopError, ImportError):
        _LOG.exception("site %s: can't be loaded; it warns of nothing", nameplate.site)
        return None
    return site if isinstance(site, Warns) else None


def _measured(nameplate: Nameplate, state: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """By group, ``[N, O]``, NaN where a reading is not good."""
    found = {}
    for group in nameplate.groups:
        told = (state.get("groups") or {}).get(group.name) or {}
        values, quality = told.get("measured") or {}, told.get("quality") or {}
        table = np.full((group.n_assets, len(group.measured)), np.nan)
        for k, signal in enumerate(group.measured):
            rows = zip(values.get(signal.name) or (), quality.get(signal.name) or (), strict=False)
            for row, (value, grade) in enumerate(rows):
                if row < group.n_assets and grade == _GOOD and isinstance(value, (int, float)):
                    table[row, k] = value
        found[group.name] = table
    return found
