"""A twin behind the deployment shield: what is proposed goes through it, what it sends is what the twin obeys.

The shield is the very object that stands before the plant (:class:`~twinloop.deploy.shield.Shield`), asked once a
replica and step, so that its memory (rates, held inputs) is a replica's own. A rollout keeps the raw action, whose
probability an on-policy learner needs, and the executed one apart; :class:`Intervention` says how far they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..agents.action_layout import ActionLayout, Float32
from ..deploy.shield import Shield, ShieldState
from ..deploy.shield.state import as_arrays, from_arrays
from ..envs.nameplate import Group, Nameplate
from ..envs.plant import Quality, Telemetry
from ..envs.twin import Parameter, Readings, Snapshot, Tensors, Twin

CHANGED_PU = 1e-6
"""Share of a command's range from which a change counts: less is float32 rounding at a limit."""

Floats = NDArray[np.float64]

_PREFIX = "shield/"
_ALL, _ONE = "state/", "replica/"


@dataclass(frozen=True, eq=False)
class Intervention:
    """What the shield made of the commands of one step.

    ``sent[g]``: ``[B, N, A]``, what the twin obeyed; ``change[g]``: ``[B, N]``, the change of an asset's commands in
    shares of their ranges, mean over its commands; ``intervened[g]``: ``[B, N]`` bool. Slots without an asset have
    neither change nor intervention.
    """

    sent: Tensors
    change: Mapping[str, Float32]
    intervened: Mapping[str, NDArray[np.bool_]]
    present: Mapping[str, NDArray[np.bool_]]

    def costs(self) -> dict[str, float]:
        """Means over the asset-steps of all groups: the share that was changed, and by how much."""
        n = max(1, sum(int(p.sum()) for p in self.present.values()))
        intervened = sum(int(x.sum()) for x in self.intervened.values())
        changed = sum(float(x.sum(dtype=np.float64)) for x in self.change.values())
        return {"shield/intervened": intervened / n, "shield/change": changed / n}


class ShieldedTwin:
    """``inner`` behind a shield; keeps the contract of :class:`~twinloop.envs.twin.Twin`.

    Each replica starts an episode as the runtime starts a plant: the shield knows nothing yet, and neutral is applied.
    Commands leave the graph here: no gradient passes a shield. Readings are handed on as they are; inside the
    nameplate's ranges, where a twin stays by contract, those are also what the input guard lets through.
    """

    def __init__(self, inner: Twin, shield: Shield | None = None) -> None:
        self._inner = inner
        self.shield = shield if shield is not None else Shield(inner.nameplate)
        self._states: list[ShieldState] = [self.shield.start()] * inner.n_replicas
        self._steps = np.zeros(inner.n_replicas, np.int64)
        groups = inner.nameplate.groups
        self._measured: dict[str, Floats] = {g.name: np.tile(_middle(g), (inner.n_replicas, 1, 1)) for g in groups}
        self._present = {g.name: np.ones((inner.n_replicas, g.n_assets), np.bool_) for g in groups}
        self._range = {g.name: g.upper("commanded") - g.lower("commanded") for g in groups}
        self._good = {g.name: np.full((g.n_assets, len(g.measured)), Quality.GOOD, np.int8) for g in groups}
        self._last: Intervention | None = None

    @property
    def inner(self) -> Twin:
        """The twin that obeys."""
        return self._inner

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

    def last(self) -> Intervention:
        """Of the newest step; raises RuntimeError before the first."""
        if self._last is None:
            raise RuntimeError("no step was taken since this twin was made or restored; call step() first")
        return self._last

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        readings = self._inner.reset(seeds, rows)
        for row in range(self.n_replicas) if rows is None else rows.tolist():
            self._states[row] = self.shield.start()
            self._steps[row] = 0
        self._keep(readings)
        return readings

    def step(self, commands: Tensors) -> Readings:
        asked = self._asked(commands)
        sent = {name: np.empty_like(array) for name, array in asked.items()}
        for row in range(self.n_replicas):
            now_s = float(self._steps[row]) * self.dt_s
            proposed = {name: array[row] for name, array in asked.items()}
            decision = self.shield.filter(self._telemetry(row, now_s), proposed, now_s, self._states[row])
            self._states[row] = decision.state
            for name, array in decision.commands.items():
                sent[name][row] = array
        obeyed = {name: torch.from_numpy(array).to(self.device, self.dtype) for name, array in sent.items()}
        self._last = self._intervention(asked, sent, obeyed)
        self._steps += 1
        readings = self._inner.step(obeyed)
        self._keep(readings)
        return readings

    def snapshot(self) -> Snapshot:
        """The inner twin's, and under ``shield/`` what the shield remembers of each replica."""
        found: dict[str, NDArray[Any]] = {"steps": self._steps}
        for group in self._measured:
            found[f"measured/{group}"], found[f"present/{group}"] = self._measured[group], self._present[group]
        found |= _stacked([as_arrays(state) for state in self._states])
        inner = self._inner.snapshot()
        return {**inner, **{_PREFIX + key: torch.from_numpy(np.array(array)) for key, array in found.items()}}

    def restore(self, snapshot: Snapshot) -> None:
        self._inner.restore({k: v for k, v in snapshot.items() if not k.startswith(_PREFIX)})
        kept = {k.removeprefix(_PREFIX): v.cpu().numpy().copy() for k, v in snapshot.items() if k.startswith(_PREFIX)}
        self._steps = kept["steps"]
        for group in self._measured:
            self._measured[group], self._present[group] = kept[f"measured/{group}"], kept[f"present/{group}"]
        self._states = [from_arrays(_row(kept, row)) for row in range(self.n_replicas)]
        self._last = None

    def parameters(self) -> dict[str, torch.Tensor]:
        return self._inner.parameters()

    def set_parameters(self, values: Tensors) -> None:
        self._inner.set_parameters(values)

    def _keep(self, readings: Readings) -> None:
        """Hold what the next telemetry says; a slot without an asset says something that nobody needs to judge."""
        for group in self.nameplate.groups:
            name = group.name
            present = readings.present[name].cpu().numpy().copy()
            measured = readings.measured[name].detach().cpu().numpy().astype(np.float64)
            if not present.all():
                measured = np.where(present[..., None], measured, _middle(group))
            self._measured[name], self._present[name] = measured, present

    def _asked(self, commands: Tensors) -> dict[str, Floats]:
        """Proposed commands ``[B, N, A]``; neutral for slots without an asset."""
        asked: dict[str, Floats] = {}
        for group in self.nameplate.groups:
            raw = commands[group.name].detach().cpu().numpy().astype(np.float64)
            present = self._present[group.name]
            asked[group.name] = raw if present.all() else np.where(present[..., None], raw, group.neutral())
        return asked

    def _telemetry(self, row: int, now_s: float) -> Telemetry:
        return Telemetry(
            values={name: array[row] for name, array in self._measured.items()},
            source_time_s={name: np.full(array.shape[1:], now_s) for name, array in self._measured.items()},
            quality=self._good,
            received_time_s=now_s,
            sequence=int(self._steps[row]),
        )

    def _intervention(self, asked: Mapping[str, Floats], sent: Mapping[str, Floats], obeyed: Tensors) -> Intervention:
        change: dict[str, Float32] = {}
        intervened: dict[str, NDArray[np.bool_]] = {}
        for name, present in self._present.items():
            share = np.abs(sent[name] - asked[name]) / self._range[name]
            # A proposal that is no number was replaced as a whole; it counts as a change over the whole range.
            share = np.where(np.isfinite(share), share, 1.0) * present[..., None]
            intervened[name] = np.any(share > CHANGED_PU, axis=-1)
            change[name] = (share.sum(axis=-1) / max(1, share.shape[-1])).astype(np.float32) * intervened[name]
        return Intervention(obeyed, change, intervened, dict(self._present))


def actions_of(layout: ActionLayout, commands: Float32) -> Float32:
    """Actions ``[..., K]`` that the layout turns into ``commands`` ``[..., A]``: in [-1, 1], or a level's index."""
    actions = np.empty((*commands.shape[:-1], layout.n_actions), np.float32)
    n = len(layout.continuous)
    actions[..., :n] = np.clip((commands[..., layout.continuous] - layout.middle) / layout.half, -1.0, 1.0)
    for k, (column, values) in enumerate(zip(layout.discrete, layout.levels, strict=True)):
        distance = np.abs(commands[..., column, None] - np.asarray(values, np.float32))
        actions[..., n + k] = distance.argmin(axis=-1)
    return actions


def _stacked(rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays of all replicas under one name where they are alike, else (such as plans, of any length) one a replica."""
    found: dict[str, NDArray[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        if len(values) == len(rows) and len({(v.shape, v.dtype) for v in values}) == 1:
            found[f"{_ALL}{name}"] = np.stack(values)
        else:
            found |= {f"{_ONE}{number}/{name}": row[name] for number, row in enumerate(rows) if name in row}
    return found


def _row(kept: Mapping[str, NDArray[Any]], row: int) -> dict[str, NDArray[Any]]:
    """The inverse, for one replica."""
    own = f"{_ONE}{row}/"
    alone = {name.removeprefix(own): array for name, array in kept.items() if name.startswith(own)}
    alike = {name.removeprefix(_ALL): np.array(array[row]) for name, array in kept.items() if name.startswith(_ALL)}
    return {**alike, **alone}


def _middle(group: Group) -> Floats:
    middle: Floats = (group.lower("measured") + group.upper("measured")) / 2.0
    return np.tile(middle, (group.n_assets, 1))
