"""A twin that counts what breaks the site's declared constraints: the training costs of the one declaration.

What the nameplate implies needs no watching: a twin limits its commands as the equipment would. Where a shield stands
between policy and twin, this is what it stands before, so that costs are of what was executed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..envs.constraint import (
    Declaration,
    History,
    LookAheadConstraint,
    Margins,
    Moment,
    constraints_of,
    needs_history,
)
from ..envs.errors import ConfigurationError, nearest
from ..envs.nameplate import Nameplate
from ..envs.twin import Parameter, Readings, Snapshot, Tensors, Twin

_PREFIX = "watched/"
_COST = "constraint/"


class WatchedTwin:
    """``inner`` with a cost for each constraint that its site adds; keeps :class:`~twinloop.envs.twin.Twin`'s contract.

    At a reset neutral commands count as applied, and nothing has changed for ever.
    """

    def __init__(self, inner: Twin, declaration: Declaration) -> None:
        self._inner = inner
        implied = constraints_of(declaration.nameplate)
        watched = tuple(
            c for c in declaration.constraints if c not in implied and not isinstance(c, LookAheadConstraint)
        )
        self._margins = Margins(Declaration(declaration.nameplate, watched, declaration.safe_states))
        self._group_of = {f"{_COST}{c.name}": c.group for c in watched}
        self._wants_history = needs_history(self._margins.declaration)
        self._neutral = {
            g.name: torch.from_numpy(np.tile(g.neutral(), (inner.n_replicas, g.n_assets, 1))).to(
                inner.device, inner.dtype
            )
            for g in inner.nameplate.groups
        }
        self._before: Tensors = self._neutral
        self._history = self._fresh_history()
        self._last: dict[str, torch.Tensor] = {}

    @property
    def nameplate(self) -> Nameplate:
        return self._inner.nameplate

    @property
    def n_replicas(self) -> int:
        return self._inner.n_replicas

    @property
    def dt_s(self) -> float:
        return self._inner.dt_s

    @property
    def device(self) -> torch.device:
        return self._inner.device

    @property
    def dtype(self) -> torch.dtype:
        return self._inner.dtype

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        return self._inner.parameter_specs

    def costs(self) -> Mapping[str, torch.Tensor]:
        """Of the newest step by ``constraint/NAME``, ``[B, N]`` of the constraint's group; what assets break together,
        all of them pay. 0 where a constraint is kept, else shares of its scale
        (:meth:`~twinloop.envs.constraint.Margins.scale`)."""
        return self._last

    def group_of(self, cost: str) -> str:
        """The group whose assets a cost counts."""
        return self._group_of[cost]

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        readings = self._inner.reset(seeds, rows)
        if rows is None:
            self._before, self._history = self._neutral, self._fresh_history()
            return readings
        chosen = torch.zeros(self.n_replicas, dtype=torch.bool, device=self.device)
        chosen[rows] = True
        self._before = _mixed(chosen, self._neutral, self._before)
        fresh, kept = self._fresh_history(), self._history
        recent = tuple(_mixed(chosen, {n: torch.zeros_like(v) for n, v in step.items()}, step) for step in kept.recent)
        self._history = History(
            _mixed(chosen, fresh.change, kept.change), _mixed(chosen, fresh.held_s, kept.held_s),
            _mixed(chosen, fresh.n_changes, kept.n_changes), kept.window, recent,
        )  # fmt: skip
        return readings

    def step(self, commands: Tensors) -> Readings:
        readings = self._inner.step(commands)
        with torch.no_grad():
            self._watch({name: values.detach() for name, values in commands.items()}, readings)
        return readings

    def close(self) -> None:
        """Let go of what the inner twin holds open, if anything."""
        close = getattr(self._inner, "close", None)
        if close is not None:
            close()

    def _watch(self, obeyed: Tensors, readings: Readings) -> None:
        moment = Moment(
            self._before, obeyed, readings.measured, self.dt_s, readings.present,
            self._history if self._wants_history else None,
        )  # fmt: skip
        self._last = {}
        for name, cost in self._margins.costs(moment).items():
            here = readings.present[self._group_of[name]]
            spread = cost if cost.ndim == here.ndim else cost[:, None].expand(here.shape)
            self._last[name] = torch.where(here, spread, torch.zeros_like(spread))
        if self._wants_history:
            self._history = self._history.after(self._before, obeyed, self.dt_s)
        self._before = obeyed

    def snapshot(self) -> Snapshot:
        """The inner twin's, and under ``watched/`` the commands and changes that constraints look back to."""
        found: dict[str, torch.Tensor] = {f"before/{n}": v for n, v in self._before.items()}
        if self._wants_history:
            for part in ("change", "held_s", "n_changes"):
                found |= {f"{part}/{n}": v for n, v in getattr(self._history, part).items()}
            for group in self._neutral if self._history.recent else ():
                found[f"recent/{group}"] = torch.stack([step[group] for step in self._history.recent])
        return {**self._inner.snapshot(), **{_PREFIX + key: value.clone() for key, value in found.items()}}

    def restore(self, snapshot: Snapshot) -> None:
        self._inner.restore({k: v for k, v in snapshot.items() if not k.startswith(_PREFIX)})
        kept = {k.removeprefix(_PREFIX): v.clone() for k, v in snapshot.items() if k.startswith(_PREFIX)}

        def groups(part: str) -> dict[str, torch.Tensor]:
            return {n: kept[f"{part}/{n}"] for n in self._neutral}

        self._before = groups("before")
        if self._wants_history:
            n_recent = min((len(v) for k, v in kept.items() if k.startswith("recent/")), default=0)
            recent = tuple({n: kept[f"recent/{n}"][i] for n in self._neutral} for i in range(n_recent))
            self._history = History(
                groups("change"), groups("held_s"), groups("n_changes"), self._history.window, recent
            )
        self._last = {}

    def parameters(self) -> dict[str, torch.Tensor]:
        return self._inner.parameters()

    def set_parameters(self, values: Tensors) -> None:
        self._inner.set_parameters(values)

    def _fresh_history(self) -> History:
        return History.start(self._margins.declaration, self._neutral)


class Charges:
    """Takes the price of broken constraints from a rollout's rewards, and keeps the mean of each cost."""

    def __init__(self, twin: WatchedTwin, prices: Mapping[str, float]) -> None:
        self._twin = twin
        self._prices = {_COST + name: price for name, price in prices.items() if price}

    def charge(self, reward: Tensors, present: Tensors, costs: dict[str, list[float]]) -> Tensors:
        """Reward ``[B, N]`` by group after the newest step, less ``price * cost`` of each priced constraint."""
        left = dict(reward)
        for name, cost in self._twin.costs().items():
            group = self._twin.group_of(name)
            here = cost[present[group]]
            costs.setdefault(name, []).append(float(here.double().mean()) if here.numel() else 0.0)
            if name in self._prices and group in left:
                left[group] = left[group] - self._prices[name] * cost
        return left


def check_prices(prices: Mapping[str, float], declaration: Declaration) -> None:
    """Raise :class:`ConfigurationError` for a price on a constraint that the site does not add."""
    implied = constraints_of(declaration.nameplate)
    names = [c.name for c in declaration.constraints if c not in implied]
    for name in prices:
        if name not in names:
            there = ", ".join(repr(n) for n in names) or "none; the nameplate's own ranges and rates are always kept"
            raise ConfigurationError(
                f"constraint_prices: site {declaration.nameplate.site!r} adds no constraint {name!r}; it adds {there}"
                f"{nearest(name, names)}"
            )


def _mixed(rows: torch.Tensor, there: Tensors, elsewhere: Tensors) -> dict[str, torch.Tensor]:
    return {n: torch.where(rows.reshape(-1, 1, 1), there[n], value) for n, value in elsewhere.items()}
