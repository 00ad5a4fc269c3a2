"""All that an algorithm of SB3 depends on, as tensors and plain values: what its own ``save`` leaves out too.

SB3's zip keeps neither generators nor buffers nor where the environments are, and is a pickle. Here the objects are
built anew from the configuration, and their numbers put back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.utils import set_random_seed

State = dict[str, Any]
_CLOCK = ("start_time",)  # the time of day, by which SB3 prints its speed


class Generators:
    """Generators of a run, of Python, numpy and torch, that stand in for the global ones while it works.

    SB3 draws from the global generators; with these, nothing else in the process changes a run, nor a run anything.
    """

    def __init__(self, seed: int, *, cuda: bool = False) -> None:
        self._cuda = cuda
        outside = self._take()
        set_random_seed(seed, using_cuda=cuda)
        self._state = self._take()
        self._put(outside)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The global generators are these; afterwards they are again what they were."""
        outside = self._take()
        self._put(self._state)
        try:
            yield
        finally:
            self._state = self._take()
            self._put(outside)

    def state(self) -> State:
        """As tensors and plain values."""
        return dict(self._state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._state = dict(state)

    def _take(self) -> State:
        version, numbers, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state()  # the one that SB3 draws from
        state: State = {
            "python": torch.tensor(numbers, dtype=torch.int64),
            "python_gauss": gauss,
            "python_version": version,
            "numpy": torch.from_numpy(np.asarray(keys, np.int64)),
            "numpy_kind": str(kind),
            "numpy_rest": [int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
        }
        if self._cuda:
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def _put(self, state: Mapping[str, Any]) -> None:
        random.setstate((state["python_version"], tuple(state["python"].tolist()), state["python_gauss"]))
        position, has_gauss, cached = state["numpy_rest"]
        keys = state["numpy"].numpy().astype(np.uint32)
        np.random.set_state((state["numpy_kind"], keys, position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if self._cuda:
            torch.cuda.set_rng_state(state["cuda"])


def state_of(model: BaseAlgorithm) -> State:
    """Everything of a model but its replay buffer, copied; a rollout buffer is empty between two iterations."""
    return {
        "policy": {name: tensor.clone() for name, tensor in model.policy.state_dict().items()},
        "optimizers": {name: _copied(optimizer.state_dict()) for name, optimizer in _optimizers(model)},
        "numbers": {n: _plain(v) for n, v in vars(model).items() if _is_number(v) and n not in _CLOCK},
        "arrays": {name: _to_tensors(value) for name, value in vars(model).items() if _is_array(value)},
        "noise": [_noise_state(noise) for noise in _noises(model)],
        "action_space": _space_state(model),
    }


def restore_to(model: BaseAlgorithm, state: Mapping[str, Any]) -> None:
    """Inverse of :func:`state_of`, into a model that the same configuration made."""
    model.policy.load_state_dict(state["policy"])
    for name, optimizer in _optimizers(model):
        optimizer.load_state_dict(_copied(state["optimizers"][name]))
    for name, value in state["numbers"].items():
        setattr(model, name, value)
    for name, value in state["arrays"].items():
        present = getattr(model, name)
        if isinstance(present, torch.Tensor) and present.requires_grad:
            with torch.no_grad():  # an optimiser holds this very tensor
                present.copy_(value)
        else:
            setattr(model, name, _like(present, value))
    for noise, held in zip(_noises(model), state["noise"], strict=True):
        for name, tensor in held.items():
            setattr(noise, name, tensor.numpy().copy())
    if state["action_space"] is not None:
        model.action_space.np_random.bit_generator.state = json.loads(state["action_space"])


def _optimizers(model: BaseAlgorithm) -> list[tuple[str, torch.optim.Optimizer]]:
    """Every optimiser of the model and its networks, by name."""
    found = [(name, o) for name, o in vars(model).items() if isinstance(o, torch.optim.Optimizer)]
    for path, module in model.policy.named_modules():
        optimizer = getattr(module, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            found.append((f"policy/{path}", optimizer))
    return found


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | np.generic)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_array(value: object) -> bool:
    if isinstance(value, tuple) and value:
        return all(_is_array(v) for v in value)
    return isinstance(value, np.ndarray | torch.Tensor)


def _to_tensors(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_tensors(v) for v in value]
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value.detach().clone()


def _like(present: Any, value: Any) -> Any:
    """``value`` of :func:`_to_tensors` in the types of ``present``; an array where there is none yet."""
    if isinstance(value, list):
        parts = [_like(p, v) for p, v in zip(present, value, strict=True)]
        # RNNStates is a named tuple, which takes its parts one by one
        return type(present)(*parts) if hasattr(present, "_fields") else tuple(parts)
    return value.clone() if isinstance(present, torch.Tensor) else value.numpy().copy()


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(v) for v in value)
    return value.clone() if isinstance(value, torch.Tensor) else value


def _noises(model: BaseAlgorithm) -> list[ActionNoise]:
    noise = model.action_noise
    if isinstance(noise, VectorizedActionNoise):
        return list(noise.noises)
    return [] if noise is None else [noise]


def _noise_state(noise: ActionNoise) -> dict[str, torch.Tensor]:
    return {n: torch.from_numpy(np.array(v)) for n, v in vars(noise).items() if isinstance(v, np.ndarray)}


def _space_state(model: BaseAlgorithm) -> str | None:
    """Generator of the action space, which draws the random actions of a warm-up; as text, for its 128-bit numbers."""
    return json.dumps(model.action_space.np_random.bit_generator.state)


class ReplayHistory:
    """Hands out the contents of a replay buffer as of now without copying them now.

    A buffer may hold a gigabyte, and a run takes hold of it at every iteration. So rows are copied when they are about
    to be overwritten, for whoever still holds on to what they were.
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer
        self._held: WeakSet[_Held] = WeakSet()

    def hold(self) -> Callable[[], State]:
        """Hold on to the present contents; calling the result copies them."""
        held = _Held(self._buffer)
        self._held.add(held)
        return held.state

    def before_writing(self, n_rows: int) -> None:
        """Say that ``n_rows`` rows from the present position on are about to be overwritten."""
        if not self._held:
            return
        # one row more: a buffer that saves memory writes the next observation there
        at = (self._buffer.pos + np.arange(min(n_rows + 1, self._buffer.buffer_size))) % self._buffer.buffer_size
        before = {name: array[at] for name, array in _arrays(self._buffer).items()}
        for held in self._held:
            held.undo.append((at, before))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`hold`, into a buffer of the same size."""
        self._buffer.pos, self._buffer.full = int(state["pos"]), bool(state["full"])
        for name, array in _arrays(self._buffer).items():
            rows = state["rows"][name].numpy()
            array[: len(rows)] = rows


class _Held:
    """A buffer's contents at one moment."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer, self.pos, self.full = buffer, buffer.pos, buffer.full
        self.undo: list[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]] = []

    def state(self) -> State:
        # a buffer that saves memory has the next observation in the row after the last
        filled = self.pos + int(getattr(self.buffer, "optimize_memory_usage", False))
        n = self.buffer.buffer_size if self.full else min(filled, self.buffer.buffer_size)
        rows = {}
        for name, array in _arrays(self.buffer).items():
            copy = array[:n].copy()
            for at, before in reversed(self.undo):
                inside = at < n
                copy[at[inside]] = before[name][inside]
            rows[name] = torch.from_numpy(copy)
        return {"pos": self.pos, "full": self.full, "rows": rows}


def _arrays(buffer: ReplayBuffer) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in vars(buffer).items() if isinstance(value, np.ndarray)}
