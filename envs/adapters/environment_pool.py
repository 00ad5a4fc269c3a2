"""Copies of somebody else's environment as one batched twin: any Gymnasium ``Env`` or PettingZoo ``ParallelEnv``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigurationError, ContractError
from ..task import Score
from ..twin import Parameter, Readings, Snapshot, Tensors
from .environment_block import Declaration, EnvironmentBlock, EnvironmentRecipe, RowReadings, inspect

_KINDS = ("measured", "hidden", "present")


class Blocks(Protocol):
    """Who steps the copies: one :class:`EnvironmentBlock` in this process, or many elsewhere."""

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> RowReadings: ...
    def step(self, commands: Sequence[NDArray[Any]]) -> RowReadings: ...
    def save(self) -> list[bytes]: ...
    def load(self, saved: Sequence[bytes]) -> None: ...
    def close(self) -> None: ...


MakeBlocks = Callable[[EnvironmentRecipe, Declaration, int, str], Blocks]


class EnvironmentPool:
    """``n_replicas`` copies of an environment behind the contract of :class:`~twinloop.envs.twin.Twin`.

    Measured signals are the observation (and the action mask); hidden signals are an agent's reward and whether it was
    terminated in the step. An agent that ended is not present from then on, until the environment brings it back; a
    copy whose episode is over stands still until it is reset. Rows are reset with the low 31 bits of their seeds, and
    depend on nothing else, given that the environment draws from its own generator alone.

    ``snapshot`` holds each copy pickled whole. Environments that do not pickle, or not whole (those with ``EzPickle``:
    Box2D, MuJoCo, MPE), are kept as seed and actions, and ``restore`` replays their episodes: exact where the same seed
    and actions give the same episode.
    """

    def __init__(
        self,
        recipe: EnvironmentRecipe,
        n_replicas: int,
        *,
        dtype: torch.dtype = torch.float32,
        declaration: Declaration | None = None,
        make_blocks: MakeBlocks = EnvironmentBlock,
    ) -> None:
        self.n_replicas, self.dtype, self.dt_s = n_replicas, dtype, recipe.dt_s
        self.device = torch.device("cpu")
        self.parameter_specs: tuple[Parameter, ...] = ()
        self.declaration = inspect(recipe) if declaration is None else declaration
        self.nameplate = self.declaration.nameplate
        self._names = [g.name for g in self.declaration.groups]
        self._blocks = make_blocks(recipe, self.declaration, n_replicas, str(dtype).removeprefix("torch."))
        self._statics = {
            g.name: torch.zeros(n_replicas, len(g.agents), 0, dtype=dtype) for g in self.declaration.groups
        }
        self._steps = np.zeros(n_replicas, np.int64)
        self._last: Readings | None = None

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        at = np.arange(self.n_replicas) if rows is None else rows.numpy()
        fresh = self._blocks.reset(at.tolist(), seeds.tolist())
        self._steps[at] = 0
        if rows is None:
            return self._remember(fresh)
        out = self._standing()
        for kind in _KINDS:
            for whole, part in zip(getattr(out, kind), getattr(fresh, kind), strict=True):
                whole[at] = part
        return self._remember(out)

    def step(self, commands: Tensors) -> Readings:
        if self._last is None:
            raise ContractError("step was called before reset; reset all rows first")
        out = self._blocks.step([commands[name].detach().numpy() for name in self._names])
        self._steps += 1
        if not out.moved.all():
            still = ~out.moved
            before = self._standing()
            for kind in _KINDS:
                for now, then in zip(getattr(out, kind), getattr(before, kind), strict=True):
                    now[still] = then[still]
            for hidden in out.hidden:
                hidden[still] = 0.0  # a reward is given once
        return self._remember(out)

    def snapshot(self) -> Snapshot:
        found = {
            f"copy.{k}": torch.frombuffer(bytearray(b), dtype=torch.uint8) for k, b in enumerate(self._blocks.save())
        }
        found["steps"] = torch.from_numpy(self._steps.copy())
        if self._last is not None:
            for kind in _KINDS:
                found |= {f"{kind}.{name}": t.clone() for name, t in getattr(self._last, kind).items()}
        return found

    def restore(self, snapshot: Snapshot) -> None:
        self._blocks.load([snapshot[f"copy.{k}"].numpy().tobytes() for k in range(self.n_replicas)])
        self._steps = snapshot["steps"].numpy().copy()
        self._last = None
        if f"present.{self._names[0]}" in snapshot:
            kinds = {kind: [snapshot[f"{kind}.{name}"].numpy().copy() for name in self._names] for kind in _KINDS}
            self._remember(RowReadings(**kinds, moved=np.ones(self.n_replicas, np.bool_)))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {}

    def set_parameters(self, values: Tensors) -> None:
        if values:
            raise ConfigurationError(
                f"an environment pool has no parameters; got {sorted(values)}; give them as options when it is made"
            )

    def close(self) -> None:
        """Close all copies and whatever process holds them."""
        self._blocks.close()

    def _standing(self) -> RowReadings:
        """Copies of the latest readings; all absent before the first."""
        moved = np.ones(self.n_replicas, np.bool_)
        if self._last is not None:
            kinds = {kind: [getattr(self._last, kind)[name].numpy().copy() for name in self._names] for kind in _KINDS}
            return RowReadings(**kinds, moved=moved)
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = [(self.n_replicas, len(g.agents), g.n_observed + g.n_mask) for g in self.declaration.groups]
        return RowReadings(
            [np.zeros(s, dtype) for s in sizes],
            [np.zeros((*s[:2], 2), dtype) for s in sizes],
            [np.zeros(s[:2], np.bool_) for s in sizes],
            moved,
        )

    def _remember(self, rows: RowReadings) -> Readings:
        def tensors(arrays: list[NDArray[Any]]) -> dict[str, torch.Tensor]:
            return {name: torch.from_numpy(a) for name, a in zip(self._names, arrays, strict=True)}

        self._last = Readings(
            measured=tensors(rows.measured),
            hidden=tensors(rows.hidden),
            statics=self._statics,
            present=tensors(list(rows.present)),
            time_s=torch.from_numpy(self._steps * self.dt_s).to(self.dtype),
        )
        return self._last


class NativeTask:
    """The environment's own reward, from the hidden signal that carries it; over when nobody is left.

    An agent that leaves without having been terminated was cut: learners count on what would have come for it.
    """

    name = "native"

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon

    def score(self, before: Readings, commands: Tensors, after: Readings) -> Score:
        anybody = torch.stack([p.any(dim=1) for p in after.present.values()]).any(dim=0)
        return Score(
            reward={g: h[..., 0] for g, h in after.hidden.items()},
            terminated=~anybody,
            cut={g: before.present[g] & ~p & (after.hidden[g][..., 1] == 0) for g, p in after.present.items()},
        )
