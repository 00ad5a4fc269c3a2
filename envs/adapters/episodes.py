"""Episodes on a batched twin: which seed each row runs, how far it is, what it scored. All adapters stand on this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ContractError
from ..noise import bits
from ..task import Task
from ..twin import Readings, Twin

Flags = NDArray[np.bool_]
_STREAM = 8001
_POSITIVE = 0x7FFFFFFFFFFFFFFF
_READINGS = ("measured", "hidden", "statics", "present")
_ROWS = ("seeds", "episode", "age")


@dataclass(frozen=True)
class Outcome:
    """One step of all rows.

    ``rewards[g]`` ``[B, N]``, zero for slots that were empty before the step (what ends an asset's part counts);
    ``costs[g][name]`` ``[B, N]``, zero for slots that are empty after it; ``acted[g]`` ``[B, N]``, which slots held an
    asset before the step, whose agent-steps these are; ``terminated`` ``[B]`` the
    task is over; ``truncated`` ``[B]`` its horizon is reached and it is not over.
    """

    readings: Readings
    rewards: Mapping[str, NDArray[np.float64]]
    costs: Mapping[str, Mapping[str, NDArray[np.float64]]]
    acted: Mapping[str, Flags]
    terminated: Flags
    truncated: Flags

    @property
    def done(self) -> Flags:
        """``[B]``, terminated or truncated."""
        return self.terminated | self.truncated

    def team_reward(self) -> NDArray[np.float64]:
        """Sum over all assets present, ``[B]``."""
        total: NDArray[np.float64] = np.sum([r.sum(axis=1) for r in self.rewards.values()], axis=0)
        return total

    def team_costs(self) -> dict[str, NDArray[np.float64]]:
        """``group/cost``: sum over the group's assets present, ``[B]``."""
        return {f"{g}/{name}": cost.sum(axis=1) for g, found in self.costs.items() for name, cost in found.items()}


class Episodes:
    """Runs ``task`` on all rows of ``twin``.

    A row's first episode runs the seed that it was given, later ones a hash of that seed and their number: a row's
    whole future follows from one seed, wherever in a batch it runs. A row that never got a seed draws one.
    """

    def __init__(self, twin: Twin, task: Task) -> None:
        self.twin, self.task = twin, task
        self.n_rows = twin.n_replicas
        self._seeds = np.zeros(self.n_rows, dtype=np.int64)
        self._episode = np.zeros(self.n_rows, dtype=np.int64)  # counts from 1; 0 for a row without a seed
        self._age = np.zeros(self.n_rows, dtype=np.int64)
        self._readings: Readings | None = None

    @property
    def readings(self) -> Readings:
        """Of all rows, the latest; raises :class:`ContractError` before the first reset."""
        if self._readings is None:
            raise ContractError("step was called before reset; reset first")
        return self._readings

    def begin(self, rows: NDArray[np.int64] | None = None, seeds: Sequence[int | None] | None = None) -> Readings:
        """Start new episodes in ``rows`` (all when None); a seed restarts a row's sequence, None carries it on."""
        at = np.arange(self.n_rows) if rows is None else rows
        self._age[at] = 0
        for row, seed in zip(at, [None] * len(at) if seeds is None else seeds, strict=True):
            if seed is None and self._episode[row] == 0:
                seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
            if seed is None:
                self._episode[row] += 1
            else:
                self._seeds[row], self._episode[row] = seed & _POSITIVE, 1
        index = None if rows is None else torch.as_tensor(rows, device=self.twin.device)
        self._readings = self.twin.reset(self._episode_seeds(at).to(self.twin.device), index)
        return self._readings

    def step(self, commands: Mapping[str, NDArray[np.float64]]) -> Outcome:
        """Advance all rows by one step with ``commands[g]`` ``[B, N, A]`` in physical units."""
        before = self.readings
        acted = {g: p.cpu().numpy().copy() for g, p in before.present.items()}  # a twin may use its tensors again
        given = {g: torch.as_tensor(c, dtype=self.twin.dtype, device=self.twin.device) for g, c in commands.items()}
        with torch.no_grad():
            after = self.twin.step(given)
            score = self.task.score(before, given, after)
        self._readings = after
        self._age += 1
        present = {g: p.cpu().numpy() for g, p in after.present.items()}
        terminated = np.array(score.terminated.cpu().numpy(), dtype=np.bool_)
        costs: dict[str, dict[str, NDArray[np.float64]]] = {g: {} for g in present}
        for name, cost in score.costs.items():
            group, short = _group_of(name, cost, present)
            costs[group][short] = _where_present(cost, present[group])
        return Outcome(
            readings=after,
            rewards={g: _where_present(r, acted[g]) for g, r in score.reward.items()},
            costs=costs,
            acted=acted,
            terminated=terminated,
            truncated=(self._age >= self.task.horizon) & ~terminated,
        )

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors."""
        readings = self.readings
        return {
            "twin": {name: tensor.clone() for name, tensor in self.twin.snapshot().items()},
            "readings": {k: {g: v.clone() for g, v in getattr(readings, k).items()} for k in _READINGS},
            "time_s": readings.time_s.clone(),
            **{name: torch.from_numpy(getattr(self, f"_{name}").copy()) for name in _ROWS},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`snapshot`."""
        self.twin.restore({name: tensor.clone() for name, tensor in state["twin"].items()})
        kinds = {k: {g: v.clone() for g, v in state["readings"][k].items()} for k in _READINGS}
        self._readings = Readings(**kinds, time_s=state["time_s"].clone())
        for name in _ROWS:
            setattr(self, f"_{name}", state[name].numpy().copy())

    def _episode_seeds(self, rows: NDArray[np.int64]) -> torch.Tensor:
        seeds, episode = torch.from_numpy(self._seeds[rows]), torch.from_numpy(self._episode[rows])
        later = bits(seeds, episode, _STREAM, 1)[:, 0] & _POSITIVE
        return torch.where(episode == 1, seeds, later)


def _where_present(values: torch.Tensor, present: Flags) -> NDArray[np.float64]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return np.where(present, array, 0.0).astype(np.float64)


def _group_of(name: str, cost: torch.Tensor, present: Mapping[str, Flags]) -> tuple[str, str]:
    """Group of a cost: the one it names (``group/cost``), else the only one that it is shaped like."""
    prefix, slash, short = name.partition("/")
    if slash and prefix in present:
        return prefix, short
    fitting = [group for group, slots in present.items() if slots.shape == tuple(cost.shape)]
    if len(fitting) != 1:
        raise ContractError(
            f"cost {name!r} has shape {tuple(cost.shape)}, which fits the groups {fitting}; name it 'group/{name}'"
        )
    return fitting[0], name
