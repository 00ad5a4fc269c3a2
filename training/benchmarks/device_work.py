"""How much work a piece of torch code is: what its operations compute and move, and what a device can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_PEAK_BYTES, _PEAK_ROWS, _PEAK_ROUNDS = 1 << 28, 4096, 5


class WorkCounter:
    """Counts inside ``with``: ``operations`` (products as multiplications and additions, anything else as one a number
    that it makes), ``moved_bytes`` (what the operations read and write when none is fused) and ``launches``."""

    def __init__(self) -> None:
        self._flops: Any = FlopCounterMode(display=False)
        self._traffic: Any = _Traffic()

    def __enter__(self) -> WorkCounter:
        self._flops.__enter__()
        self._traffic.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._traffic.__exit__(*raised)
        self._flops.__exit__(*raised)

    @property
    def operations(self) -> float:
        return float(self._flops.get_total_flops() + self._traffic.made)

    @property
    def moved_bytes(self) -> float:
        return float(self._traffic.moved_bytes)

    @property
    def launches(self) -> int:
        return int(self._traffic.launches)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives this class no types
    """Numbers made and bytes moved by operations that are not views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.made = 0
        self.moved_bytes = 0
        self.launches = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if any(r.alias_info is not None and not r.alias_info.is_write for r in returns):
            return found
        written, read = _tensors(found), [*_tensors(args), *_tensors(tuple((kwargs or {}).values()))]
        self.made += sum(t.numel() for t in written)
        self.moved_bytes += sum(t.numel() * t.element_size() for t in (*written, *read))
        self.launches += 1
        return found


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for part in value for t in _tensors(part)]
    return []


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_rates(device: torch.device, size: float = 1.0) -> tuple[float, float]:
    """Bytes and float32 operations a second that this device reached here, copying an array and multiplying matrices.

    ``size`` scales both down for small machines.
    """
    source = torch.zeros(max(1, int(_PEAK_BYTES * size) // 4), device=device)
    target = torch.empty_like(source)
    n = max(64, int(_PEAK_ROWS * size**0.5))
    matrix, product = torch.ones(n, n, device=device), torch.empty(n, n, device=device)
    copied = _fastest(lambda: target.copy_(source), device)
    multiplied = _fastest(lambda: torch.mm(matrix, matrix, out=product), device)
    return 2.0 * 4.0 * source.numel() / copied, 2.0 * n**3 / multiplied


def _fastest(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of some rounds, after one that does not count."""
    best = float("inf")
    for number in range(_PEAK_ROUNDS + 1):
        synchronise(device)
        start = time.perf_counter()
        action()
        synchronise(device)
        if number:
            best = min(best, time.perf_counter() - start)
    return best
