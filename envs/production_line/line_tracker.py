"""Keeps the members of a live twin where a line is: states are taken over, rates are learnt from counts.

Each period: what was read is judged against the members' forecast; then the members get the plant's levels and states,
and parameters from posteriors that have learnt from the period (:mod:`.machine_beliefs`). A member keeps its place in
them for good (a quantile, a hash of the member), so that members differ as much as is not known, and move together.

Judged by ranks (Hamill 2001, "Interpretation of rank histograms", MWR 129): where the plant's value is exchangeable
with the members', its rank among them is uniform, ties broken at random; the normal quantile of it is squared for the
NIS. That holds for counts and switches as well as for numbers.

A counter that does not agree with the levels on both its sides is left out: parts are neither made nor lost in between.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from .. import noise
from ..errors import ConfigurationError, ContractError, nearest
from ..estimation.contract import Assimilated, Spread
from ..estimation.mixable import present_readings
from ..estimation.settings import FilterSettings
from ..twin import Parameter, Readings, Tensors, Twin
from .config import LineConfig
from .line_plan import Plan, plan_of
from .machine_beliefs import Beliefs, Counted, Rates
from .nameplate import CREW, MACHINE
from .physics import BLOCKED, DOWN, IN_SERVICE, IN_STANDBY, IS_OFF, WARMING
from .service_beliefs import ServiceBeliefs
from .told_state import AT, ToldState
from .tracking import EFFICIENCY, FAILS, PACE, REPAIRS, SERVICE
from .wear_beliefs import PaceBeliefs

Tensor = torch.Tensor
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_PLACE_STREAM, _JUDGE_STREAM, _WEAR_STREAM = 904, 905, 906
_INSIDE = 1.959963984540054  # standard normal quantile of 0.975
_BALANCE = 0.5
_DAY_S, _HOUR_S = 86_400.0, 3600.0


class LineTracker:
    """A :class:`~twinloop.envs.estimation.contract.Tracker` of a fixed line of Bernoulli or geometric machines.

    Raises :class:`ConfigurationError` for signals and parameters that the line does not have, and for settings of
    ensemble Kalman filters; :class:`ContractError` for too few members.
    """

    def __init__(self, twin: Twin, settings: FilterSettings, config: LineConfig) -> None:
        if twin.n_replicas < 16:
            raise ContractError(f"{twin.n_replicas} members are too few to rank a reading among; give 32 or more")
        for name, only in (("method", "deterministic"), ("inflation", 1.0)):
            if getattr(settings, name) != only:
                raise ConfigurationError(
                    f"live_twin.{name}: {getattr(settings, name)!r}; a line is tracked by counts, not by an ensemble "
                    "Kalman filter: leave it out"
                )
        self.twin, self.settings = twin, settings
        self._config, self._plan = config, plan_of(config)
        self._columns = _columns(twin, settings)
        self._specs = _specs(twin, settings)
        self._told = ToldState(config, self._plan)
        self._beliefs = _beliefs(twin, settings, self._plan.names)
        keep = float(np.exp(-twin.dt_s / settings.memory_s))
        self._paces = PaceBeliefs(self._plan.machines, _stds(settings, self._plan, PACE), keep)
        slots = config.slots_per_period
        self._services = ServiceBeliefs(self._plan.machines, _stds(settings, self._plan, SERVICE), keep, slots)
        n, b = len(self._plan.names), twin.n_replicas
        self._members = torch.arange(b, dtype=torch.int64, device=twin.device) + settings.seed * 1_000_003
        places = noise.uniform(self._members, torch.zeros_like(self._members), _PLACE_STREAM, 5 * n + 2, torch.float64)
        even = _spread_evenly(places.cpu().numpy().T)
        self._places, self._common = even[: 5 * n].reshape(5, n, b), even[5 * n :]
        self._step, self._start_hour = 0, config.start_hour[0]
        self._asked = np.zeros(n)
        self._speed = np.ones(n)
        self._last: Floats = np.full((n, len(twin.nameplate.group(MACHINE).measured)), np.nan)
        self._measured: dict[str, Tensor] = {}

    def set_clock(self, time_s: float) -> None:
        """The tariff goes by the hour of day of the plant's clock."""
        self._start_hour = (self._config.start_hour[0] + time_s % _DAY_S / _HOUR_S) % 24.0

    def start(self, widening: float = 1.0, observed: Mapping[str, Tensor] | None = None) -> None:
        """Members as the line is configured, parameters from the prior; the first reading gives the state."""
        del observed  # taken over whole with the reading itself, right after the period that it ends
        self._step = 0
        self._beliefs.forget(widening)
        self._paces.forget(widening)
        self._services.forget(widening)
        self._last = np.full_like(self._last, np.nan)
        self.twin.reset(self._members)
        kept = dict(self.twin.snapshot())
        kept["state/start_hour"] = torch.full_like(kept["state/start_hour"], self._start_hour)
        self.twin.restore(kept)
        self._set_parameters()
        self._measured = _of(present_readings(self.twin).measured)

    def advance(self, commands: Tensors) -> None:
        """One period under ``commands`` ``[N, A]`` a group, which all members obey."""
        self._step += 1
        machine = commands[MACHINE].cpu().numpy()
        self._speed = machine[:, 1].copy()
        self._asked = machine[:, 2].copy() if machine.shape[1] > 2 else np.zeros(len(machine))
        every = {
            name: value.to(self.twin.device, self.twin.dtype).expand(self.twin.n_replicas, *value.shape)
            for name, value in commands.items()
        }
        with torch.no_grad():
            self._measured = _of(self.twin.step(every).measured)

    def assimilate(self, observed: Mapping[str, Tensor]) -> Assimilated:
        """Judge a reading, learn from it, and put the members where the plant is."""
        told = observed[MACHINE].cpu().numpy().astype(np.float64)
        odd = self._unbalanced(told)
        found = self._judged(observed, odd)
        known = told.copy()
        known[odd] = np.nan
        self._beliefs.take(self._counted(known))
        self._paces.take(told, self._last, self._asked)
        self._services.take(told, self._last, self._asked)
        self._take_over(told, observed.get(CREW))
        self._last = told
        self._set_parameters()
        self._measured = _of(present_readings(self.twin).measured)
        return found

    def spread(self) -> Spread:
        """What the members say would be read now: means, and of states the one in the middle."""
        mean, std, reading = {}, {}, {}
        for name, members in self._measured.items():
            error = torch.zeros_like(members[0])
            for column, variance in self._columns.get(name, {}).items():
                error[:, column] = variance
            mean[name], std[name] = members.mean(0), members.std(0)
            reading[name] = (members.var(0) + error).sqrt()
        states = self._measured[MACHINE][..., AT["state"]]
        mean[MACHINE][:, AT["state"]] = states.median(0).values
        return Spread(mean, std, reading)

    def readings(self) -> Readings:
        """What the members say now, hidden signals among it."""
        return present_readings(self.twin)

    def parameters(self) -> dict[str, Tensor]:
        """Estimated parameters, each ``[B]``."""
        present = self.twin.parameters()
        return {spec.name: present[spec.name] for spec in self._specs}

    def snapshot(self) -> dict[str, Tensor]:
        """All of it, as tensors; :meth:`restore` is the exact inverse."""
        own = {
            f"tracker/belief/{k}": torch.from_numpy(v)
            for k, v in (self._beliefs.memory() | self._paces.memory() | self._services.memory()).items()
        }
        own |= {"tracker/step": torch.tensor(self._step), "tracker/last": torch.from_numpy(self._last.copy())}
        own |= {f"tracker/measured/{k}": v.clone() for k, v in self._measured.items()}
        return {**self.twin.snapshot(), **own}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        own = {k.removeprefix("tracker/"): v for k, v in snapshot.items() if k.startswith("tracker/")}
        self.twin.restore({k: v for k, v in snapshot.items() if not k.startswith("tracker/")})
        self._step, self._last = int(own["step"]), own["last"].numpy().copy()
        memory = {k.removeprefix("belief/"): v.numpy() for k, v in own.items() if k.startswith("belief/")}
        self._beliefs.recall(memory)
        self._paces.recall(memory)
        self._services.recall(memory)
        self._measured = {k.removeprefix("measured/"): v.clone() for k, v in own.items() if k.startswith("measured/")}

    def _unbalanced(self, told: Floats) -> Bools:
        """``[M]``: machines whose counters do not agree with the levels beside them: parts neither come nor go."""
        now, before = self._told.levels(told), self._told.levels(self._last)
        held, holds = self._last[:, AT["state"]] == BLOCKED, told[:, AT["state"]] == BLOCKED
        done = told[:, AT["parts"]] + holds - held
        off = [
            now[k] - before[k] - done[producer] + done[consumer]
            for k, (producer, consumer) in enumerate(zip(self._plan.producer, self._plan.consumer, strict=True))
        ]
        known = [k for k, by in enumerate(off) if not np.isnan(by)]
        return self._suspects(known, [k for k in known if abs(off[k]) > _BALANCE])

    def _suspects(self, known: list[int], wrong: list[int]) -> Bools:
        """``[M]``: the fewest machines that explain what is ``wrong``, each with all its ``known`` buffers wrong; of
        two that explain as much, both."""
        ends = list(zip(self._plan.producer, self._plan.consumer, strict=True))
        found = np.zeros(len(self._plan.names), dtype=np.bool_)
        could = {i for k in wrong for i in ends[k] if all(j in wrong for j in known if i in ends[j])}
        left = set(wrong)
        while left:
            explains = {i: sum(i in ends[k] for k in left) for i in could}
            most = max(explains.values(), default=0)
            if not most:
                break
            worst = [i for i, n in explains.items() if n == most]
            found[worst] = True
            left = {k for k in left if not set(ends[k]) & set(worst)}
        return found

    def _judged(self, observed: Mapping[str, Tensor], odd: Bools) -> Assimilated:
        """Each value that counts by its rank among the members."""
        scores, kept, left_out = [], [], []
        for group in self.twin.nameplate.groups:
            for column, variance in self._columns.get(group.name, {}).items():
                signal = group.measured[column]
                values = observed[group.name][:, column].cpu().numpy().astype(np.float64)
                members = self._measured[group.name][..., column].cpu().numpy().T
                errs = self._errors(group.name, column, variance, observed)
                z = self._scores(members, values, errs, signal.unit == "parts", (group.name, column))
                there = ~np.isnan(values)
                strange = odd & there if (group.name, column) == (MACHINE, AT["parts"]) else np.zeros_like(there)
                scores.append(z[there])
                kept.append(~strange[there])
                left_out += [f"{group.name}/{a}/{signal.name}" for a, s in zip(group.assets, strange, strict=True) if s]
        z, used = np.concatenate(scores), np.concatenate(kept)
        inside = torch.from_numpy(np.abs(z) <= _INSIDE)
        return Assimilated(float((z[used] ** 2).sum()), int(used.sum()), inside, tuple(left_out))

    def _errors(self, group: str, column: int, variance: float, observed: Mapping[str, Tensor]) -> Floats:
        """Variance ``[N]`` of a reading. A machine that rested all period has nothing to be off by but the sensor's
        noise."""
        found = np.full(observed[group].shape[0], variance)
        if group == MACHINE:
            noise_only = self.settings.signals[self._name(group, column)].noise ** 2
            now, before = observed[group][:, AT["state"]].cpu().numpy(), self._last[:, AT["state"]]
            found[np.isin(now, (IN_STANDBY, IS_OFF)) & np.isin(before, (IN_STANDBY, IS_OFF))] = noise_only
        return found

    def _name(self, group: str, column: int) -> str:
        return f"{group}/{self.twin.nameplate.group(group).measured[column].name}"

    def _scores(self, members: Floats, values: Floats, errors: Floats, counts: bool, what: tuple[str, int]) -> Floats:
        """Normal scores ``[N]`` of ``values`` ``[N]`` among ``members`` ``[N, B]`` whose readings err with variances
        ``errors`` ``[N]``; errors of counts are whole numbers."""
        n, b = members.shape
        stream = _JUDGE_STREAM + 8 * what[1] + (what[0] == CREW)
        drawn = (
            noise.normal(self._members, torch.full_like(self._members, self._step), stream, n, torch.float64).numpy().T
        )
        if counts:  # up or down by one, as often as has this variance
            edge = np.where(errors > 1e-3, ndtri(1.0 - 0.5 * np.clip(errors, 1e-3, 1.0)), np.inf)
            read = np.maximum(members + np.where(np.abs(drawn) > edge[:, None], np.sign(drawn), 0.0), 0.0)
        else:
            read = members + np.sqrt(errors)[:, None] * drawn
        first = self._members[:1]
        ties = noise.uniform(first, torch.full_like(first, self._step), stream + 4, n, torch.float64).numpy()[0]
        same = np.abs(read - values[:, None]) < 1e-9
        below = (read < values[:, None]) & ~same
        u = (below.sum(1) + ties * (same.sum(1) + 1.0)) / (b + 1.0)
        return np.asarray(ndtri(u), dtype=np.float64)

    def _counted(self, told: Floats) -> Counted:
        """What the period teaches; nothing of machines that were off, warming up, or read badly at either end of it."""
        slots = float(self._config.slots_per_period)
        state, before = told[:, AT["state"]], self._last[:, AT["state"]]
        parts, down = told[:, AT["parts"]], slots * told[:, AT["down_pu"]]
        known = ~np.isnan(told[:, list(AT.values())]).any(1) & ~np.isnan(before) & (self._speed > 0)
        worked = np.isin(state, range(DOWN + 1)) & (np.isin(before, range(DOWN + 1)) | (before == IN_SERVICE))
        up = slots - down - slots * (told[:, AT["blocked_pu"]] + told[:, AT["starved_pu"]])
        waits = (told[:, AT["waits_for_crew"]] > 0.5) | (self._last[:, AT["waits_for_crew"]] > 0.5)
        serves = (state == IN_SERVICE) | (before == IN_SERVICE) | waits
        learns, rests = known & worked & ~serves, known & ~serves & (before != WARMING)

        def of(mask: Bools, values: Floats) -> Floats:
            return np.where(mask, np.nan_to_num(values), 0.0)

        is_down, was_down = state == DOWN, before == DOWN
        return Counted(
            trials=of(learns, np.maximum(up, 0.0) * self._speed),
            made=of(learns, parts),
            stops=of(rests, ((down > 1e-9) & ~was_down).astype(np.float64)),
            down=of(rests, down),
            repairs=of(rests, ((down > 1e-9) | was_down).astype(np.float64) * ~is_down),
        )

    def _take_over(self, told: Floats, crew: Tensor | None) -> None:
        kept = {k: v.clone() for k, v in self.twin.snapshot().items()}
        state = {k.removeprefix("state/"): v for k, v in kept.items() if k.startswith("state/")}
        n = len(told)
        u = (
            noise.uniform(self._members, torch.zeros_like(self._members), _WEAR_STREAM, n, torch.float64)
            .cpu()
            .numpy()
            .T
        )
        self._told.take(state, told, self._asked, u)
        if crew is not None:
            self._told.take_spares(state, crew.cpu().numpy().astype(np.float64))
        self.twin.restore(kept | {f"state/{k}": v for k, v in state.items()})

    def _set_parameters(self) -> None:
        values = dict(zip((EFFICIENCY, FAILS, REPAIRS), self._beliefs.quantiles(self._places[:3]), strict=True))
        values[PACE] = self._paces.quantiles(self._places[3], self._common[0])
        values[SERVICE] = self._services.quantiles(self._places[4], self._common[1])
        self.twin.set_parameters(
            {
                f"{name}{kind}": torch.from_numpy(table[i].copy())
                for kind, table in values.items()
                for i, name in enumerate(self._plan.names)
                if f"{name}{kind}" in self.settings.parameters
            }
        )


def _of(measured: Tensors) -> dict[str, Tensor]:
    return {name: value.detach().to(torch.float64) for name, value in measured.items()}


def _spread_evenly(u: Floats) -> Floats:
    """Uniforms ``[R, B]`` as a Latin hypercube: each row has one value in each of ``B`` equal parts."""
    n = u.shape[1]
    rank = u.argsort(1).argsort(1)
    return np.asarray((rank + 0.5) / n, dtype=np.float64)


def _columns(twin: Twin, settings: FilterSettings) -> dict[str, dict[int, float]]:
    """Variance by group and column of what is judged."""
    known = {f"{g.name}/{s.name}": (g.name, k) for g in twin.nameplate.groups for k, s in enumerate(g.measured)}
    found: dict[str, dict[int, float]] = {}
    for name, error in settings.signals.items():
        if name not in known:
            raise ConfigurationError(
                f"signals: {name!r} is not measured at {twin.nameplate.site!r}; there are {', '.join(known)}"
                f"{nearest(name, known)}"
            )
        group, column = known[name]
        found.setdefault(group, {})[column] = error.variance
    return found


def _specs(twin: Twin, settings: FilterSettings) -> list[Parameter]:
    known = {s.name: s for s in twin.parameter_specs if s.name.endswith((EFFICIENCY, FAILS, REPAIRS, PACE, SERVICE))}
    for name in settings.parameters:
        if name not in known:
            raise ConfigurationError(
                f"parameters: {name!r} cannot be learnt of this line; there are {', '.join(known)}"
                f"{nearest(name, known)}"
            )
    return [known[name] for name in settings.parameters]


def _beliefs(twin: Twin, settings: FilterSettings, names: tuple[str, ...]) -> Beliefs:
    present = twin.parameters()

    def rates(kind: str) -> Rates:
        mean, std = np.zeros((2, len(names)))
        for i, name in enumerate(names):
            prior = settings.parameters.get(f"{name}{kind}")
            own = float(present[f"{name}{kind}"][0])
            mean[i] = own if prior is None or prior.mean is None else prior.mean
            std[i] = 0.0 if prior is None else prior.std
        return Rates(mean, std)

    keep = float(np.exp(-twin.dt_s / settings.memory_s))
    return Beliefs(rates(EFFICIENCY), rates(FAILS), rates(REPAIRS), keep)


def _stds(settings: FilterSettings, plan: Plan, kind: str) -> Floats:
    """``[M]``: prior standard deviations of a kind of parameter, 0 where it is not learnt."""
    priors = [settings.parameters.get(f"{name}{kind}") for name in plan.names]
    return np.array([0.0 if prior is None else prior.std for prior in priors])
