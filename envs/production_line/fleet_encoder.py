"""How machines that share crews see themselves among the others, and what the dispatcher has on its board.

Features do not depend on how many machines there are, save the dispatcher's. Both mask what would be of no use: a call
without a crew that could come, service of a machine that does not wear, a mode that may not change yet. Runs on numpy
and on torch alike (:mod:`twinloop.envs.encoder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from ..configuration import Strict
from ..errors import ConfigurationError
from ..nameplate import Nameplate
from .features import bounded, module_of
from .nameplate import CREW, CREW_MEASURED, HELD, MACHINE

Array = Any
_N_STATES, _DOWN, _WARMING, _IN_SERVICE = 8, 3.0, 4.0, 7.0
_OWN, _OTHERS = _N_STATES + 15, 7
_URGENT = 1e3
"""Above any difference of two logarithms of hazards."""


class FleetSettings(Strict):
    """Settings of the encoder ``fleet``. ``group``: whose it is, which training fills in.

    ``on_slots``, ``rest_slots``, ``lock_out``: as in the site's ``limits``, so that a policy keeps them by itself.
    """

    group: Literal["machine", "crew"] = "machine"
    usual_wait_slots: PositiveFloat = Field(10.0, description="for a crew")
    usual_age_slots: PositiveFloat = Field(100.0, description="of work between renewals, on the dispatcher's board")
    usual_parts: PositiveFloat = Field(5.0, description="parts in a buffer that count as middling")
    calls_need_a_crew: bool = Field(True, description="as many may call as crews are free, those likeliest to fail")
    window_pu: tuple[NonNegativeFloat, PositiveFloat] | None = Field(
        None,
        description="ages, in shares of the mean life, before which a machine may not ask for service, and from which "
        "on it must where it may, before all others; absent: it may ask at any age",
    )
    finish_warm_up: bool = Field(True, description="a machine that warms up stays on")
    on_slots: NonNegativeInt = 0
    rest_slots: NonNegativeInt = 0
    lock_out: bool = False

    @model_validator(mode="after")
    def _window_opens(self) -> FleetSettings:
        if self.window_pu is not None and not self.window_pu[0] < self.window_pu[1]:
            raise ValueError(f"window_pu: {self.window_pu}; the first age must be below the second")
        return self


class FleetEncoder:
    """Own state (one-hot of eight), age as a share of the mean life, its power by the life's shape (a hazard), wear and
    durations, crews and calls; then the fleet: shares of machines that are older, worn, down and in service.

    Raises :class:`ConfigurationError` on a line whose machines do not wear.
    """

    name = "fleet"
    group = MACHINE

    def __init__(self, nameplate: Nameplate, settings: FleetSettings) -> None:
        group = nameplate.group(MACHINE)
        self._settings = settings
        self._at = {s.name: k for k, s in enumerate(group.measured)}
        self._static = {s.name: k for k, s in enumerate(group.statics)}
        if "wear_kind" not in self._static:
            raise ConfigurationError("encoder fleet: no machine of this line wears; take neighbours, or give an upkeep")
        if (settings.on_slots or settings.rest_slots) and HELD.name not in self._at:
            raise ConfigurationError(
                f"encoder fleet: on_slots {settings.on_slots} and rest_slots {settings.rest_slots} on a site whose "
                "limits have neither; give them to the site too"
            )
        self._beliefs = [k for k, s in enumerate(group.measured) if s.name.startswith("belief_")]
        self._levels = [(s.name, s.levels or ()) for s in group.commanded]

    @property
    def n_features(self) -> int:
        return _OWN + _OTHERS + len(self._beliefs)

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump(mode="json")

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, N, F]``; zero where ``present`` ``[B, N]`` is False."""
        xp, s = module_of(measured), self._settings
        here = present[..., None]
        measured = xp.where(here, measured, xp.zeros_like(measured))
        state = self._told(measured, "state")
        one, nothing = xp.ones_like(state), xp.zeros_like(state)

        def flag(condition: Array) -> Array:
            return xp.where(condition, one, nothing)

        def fixed(name: str) -> Array:
            return statics[..., self._static[name]] * one

        wears, life = (
            flag(fixed("wear_kind") > 0.5),
            xp.where(fixed("mean_life_slots") > 0, fixed("mean_life_slots"), one),
        )
        old = xp.clip(self._told(measured, "age_slots") / life, 0.0, 10.0) * wears
        hazard = xp.clip(old, 1e-6, 3.0) ** xp.clip(fixed("wear_shape") - 1.0, 0.0, 6.0)
        seen = xp.clip(self._told(measured, "seen_wear_pu"), 0.0, 1.0)
        ago = xp.clip(self._told(measured, "seen_ago_slots") / life, 0.0, 10.0) * wears
        free, calls = self._told(measured, "crews_free"), self._told(measured, "calls")
        columns = [flag(xp.abs(state - k) < 0.5) for k in range(_N_STATES)]
        columns += [bounded(old, 1.0), xp.clip(old, 0.0, 2.0) / 2.0, bounded(hazard, 1.0), seen, bounded(ago, 0.5)]
        columns += [bounded(fixed("wear_shape"), 2.0), flag(fixed("wear_kind") > 1.5)]
        columns += [bounded(fixed(f"{kind}_slots"), s.usual_wait_slots) for kind in ("preventive", "corrective")]
        columns += [flag(free > 0.5), bounded(free, 1.0), bounded(calls, 2.0), self._told(measured, "waits_for_crew")]
        columns += [bounded(self._told(measured, name), s.usual_parts) for name in ("parts_before", "room_behind")]
        count = present.sum(1)[..., None] * one
        urgency = xp.where(present, old + seen, -one)
        older = ((urgency[:, None, :] > urgency[:, :, None]) & present[:, None, :]).sum(-1) / count
        works = present & (xp.abs(state - _DOWN) > 0.5) & (xp.abs(state - _IN_SERVICE) > 0.5)
        columns.append(older)
        columns += [flag(works & (old > level)).sum(1)[..., None] / count for level in (0.3, 0.5, 0.7)]
        columns += [flag(present & (xp.abs(state - k) < 0.5)).sum(1)[..., None] / count for k in (_DOWN, _IN_SERVICE)]
        columns.append((xp.where(present, xp.clip(old, 0.0, 2.0), nothing).sum(1)[..., None] / count) / 2.0)
        columns += [measured[..., k] for k in self._beliefs]
        features = xp.stack([column * one for column in columns], -1)
        return xp.where(here, features, xp.zeros_like(features)), memory

    def legal(self, measured: Array, statics: Array, present: Array) -> Array:
        """``[B, N, L]``: which levels of mode, speed and service a machine may choose."""
        xp = module_of(measured)
        state = self._told(measured, "state")
        yes = xp.ones_like(state) > 0.5
        served = xp.abs(state - _IN_SERVICE) < 0.5
        columns = []
        for name, levels in self._levels:
            if name == "service":
                columns += self._services(measured, statics, levels)
            elif name == "mode":
                columns += self._modes(measured, levels, state, served)
            else:
                columns += [yes] * len(levels)
        return xp.stack(columns, -1)

    def _services(self, measured: Array, statics: Array, levels: tuple[float, ...]) -> list[Array]:
        """Of nothing (0), preventive service (1) and inspection (2); in a window's end nothing may be no choice."""
        yes = abs(measured[..., 0]) >= 0
        opened, must = yes, ~yes
        if self._settings.window_pu is not None:
            first, last = (share * statics[..., self._static["mean_life_slots"]] for share in self._settings.window_pu)
            age = self._told(measured, "age_slots")
            opened, must = age >= first, age >= last
        # who must comes before who may: nobody who would rather wait stands in the way
        service = self._may_call(measured, statics, 1.0, opened, must)
        must = must & service
        look = self._may_call(measured, statics, 2.0, yes, ~yes) & ~must
        return [~must if level < 0.5 else service if level < 1.5 else look for level in levels]

    def _may_call(self, measured: Array, statics: Array, level: float, among: Array, urgent: Array) -> Array:
        """Whether a machine may ask for preventive service (1) or an inspection (2), of those ``among`` all; those that
        are ``urgent`` before the others."""
        state, kind = self._told(measured, "state"), statics[..., self._static["wear_kind"]]
        works = (abs(state - _DOWN) > 0.5) & (abs(state - _IN_SERVICE) > 0.5)
        # a Weibull life has nothing to see, and a sensor's wear is known already
        fits = kind > (0.5 if level < 1.5 else 1.5)
        may = works & fits & among
        if self._settings.calls_need_a_crew:
            calls, waits = self._told(measured, "calls"), self._told(measured, "waits_for_crew")
            left = self._told(measured, "crews_free") - (calls - waits)
            may = may & (self._before(measured, statics, may, urgent) + 0.5 < left)
        return may

    def _before(self, measured: Array, statics: Array, may: Array, urgent: Array) -> Array:
        """``[B, N]``: how many of those that ``may`` call are ``urgent`` and not this one, or else likelier to fail in
        the next slot of work."""
        xp = module_of(measured)
        one = xp.ones_like(measured[..., 0])
        life, shape = (statics[..., self._static[name]] for name in ("mean_life_slots", "wear_shape"))
        old = xp.clip(self._told(measured, "age_slots") / xp.where(life > 0, life, xp.ones_like(life)), 1e-3, 10.0)
        # a Weibull hazard up to a factor that hardly depends on the shape; worn machines first among like ones
        hazard = (
            xp.log(old) * xp.clip(shape - 1.0, 0.0, 20.0)
            - xp.log(xp.clip(life, 1e-3, 1e12))
            + xp.log(xp.clip(shape, 1e-3, 1e3))
        )
        hazard = hazard + self._told(measured, "seen_wear_pu") + _URGENT * xp.where(urgent, one, xp.zeros_like(one))
        n = hazard.shape[1]
        place = xp.arange(n)
        if hasattr(hazard, "device") and xp.__name__ == "torch":
            place = place.to(hazard.device)
        theirs, mine = hazard[:, None, :], hazard[:, :, None]
        ahead = (theirs > mine) | ((theirs == mine) & (place[None, None, :] < place[None, :, None]))
        return (ahead & may[:, None, :]).sum(-1)

    def _modes(self, measured: Array, levels: tuple[float, ...], state: Array, served: Array) -> list[Array]:
        s = self._settings
        yes = abs(state) >= 0
        stays_on, rests = ~yes, ~yes
        if s.finish_warm_up:
            stays_on = stays_on | (abs(state - _WARMING) < 0.5)
        if s.on_slots or s.rest_slots:
            held = self._told(measured, HELD.name)
            rests_now = (abs(state - 5.0) < 0.5) | (abs(state - 6.0) < 0.5)
            stays_on = stays_on | (~rests_now & (held < s.on_slots - 0.5))
            rests = rests_now & (held < s.rest_slots - 0.5)
        found = []
        for level in levels:
            legal = (~rests & yes) if level > 1.5 else ~stays_on
            if s.lock_out:
                legal = (served & (level < 0.5)) | (~served & legal)
            if level < 1.5 and s.rest_slots:
                # who may not start yet stays where it is
                legal = legal & (~rests | (abs(state - (6.0 if level < 0.5 else 5.0)) < 0.5))
            found.append(legal)
        return found

    def _told(self, measured: Array, name: str) -> Array:
        return measured[..., self._at[name]]


class CrewEncoder:
    """The dispatcher's board, bounded: crews, calls and spares; then of every machine what it waits for (one-hot of
    three), how long, and its age. It may put a machine first that waits, or nobody."""

    name = "crew"
    group = CREW

    def __init__(self, nameplate: Nameplate, settings: FleetSettings) -> None:
        group = nameplate.group(CREW)
        self._settings, self._n = settings, (len(group.measured) - len(CREW_MEASURED)) // 3

    @property
    def n_features(self) -> int:
        return len(CREW_MEASURED) + 5 * self._n

    def settings(self) -> dict[str, Any]:
        return self._settings.model_dump(mode="json")

    def start(self, n_rows: int, n_assets: int, like: Array) -> Mapping[str, Array]:
        """Nothing is remembered."""
        return {}

    def encode(
        self, measured: Array, statics: Array, present: Array, memory: Mapping[str, Array], dt_s: float
    ) -> tuple[Array, Mapping[str, Array]]:
        """Features ``[B, 1, 3 + 5 N]``."""
        xp, n, s = module_of(measured), self._n, self._settings
        head, call = measured[..., :3], measured[..., 3 : 3 + n]
        waited, age = measured[..., 3 + n : 3 + 2 * n], measured[..., 3 + 2 * n :]
        one, nothing = xp.ones_like(call), xp.zeros_like(call)
        kinds = [xp.where(xp.abs(call - k) < 0.5, one, nothing) for k in (1.0, 2.0, 3.0)]
        found = xp.concatenate(
            (bounded(head, 2.0), *kinds, bounded(waited, s.usual_wait_slots), bounded(age, s.usual_age_slots)), -1
        )
        return xp.where(present[..., None], found, xp.zeros_like(found)), memory

    def legal(self, measured: Array, statics: Array, present: Array) -> Array:
        """``[B, 1, 1 + N]``: nobody, or a machine that waits."""
        xp, n = module_of(measured), self._n
        waits = measured[..., 3 : 3 + n] > 0.5
        return xp.concatenate((xp.ones_like(measured[..., :1]) > 0.5, waits), -1)
