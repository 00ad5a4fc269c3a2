"""Find the first place where arrays disagree, and say it in the nameplate's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ContractError
from ..nameplate import Nameplate
from ..twin import Readings

KINDS = ("measured", "hidden", "statics", "present")


def require(condition: bool, check: str, message: str) -> None:
    """Raise :class:`ContractError` with the check's name unless ``condition``."""
    if not condition:
        fail(check, message)


def fail(check: str, message: str) -> NoReturn:
    """Raise :class:`ContractError` with the check's name."""
    raise ContractError(f"check {check!r}: {message}")


def first(mask: Any) -> tuple[int, ...] | None:
    """Index of the first True of a tensor or array, or None."""
    found = np.argwhere(np.asarray(mask))
    return None if len(found) == 0 else tuple(int(i) for i in found[0])


def place(nameplate: Nameplate, kind: str, group: str, index: tuple[int, ...]) -> str:
    """``(asset, signal)`` indices as a full name: ``tank/T2/heater_kw``."""
    declared = nameplate.group(group)
    words = [group, declared.assets[index[0]]]
    if len(index) > 1:
        words.append(getattr(declared, kind)[index[1]].name)
    return "/".join(words if kind != "present" else [*words, "present"])


def tensors(readings: Readings) -> Iterator[tuple[str, str, torch.Tensor]]:
    """``(kind, group, tensor)`` of everything in ``readings`` but the time."""
    for kind in KINDS:
        for group, tensor in getattr(readings, kind).items():
            yield kind, group, tensor


def copy_of(readings: Readings) -> Readings:
    """A copy that later calls can't change."""
    kinds = {k: {g: t.detach().clone() for g, t in getattr(readings, k).items()} for k in KINDS}
    return Readings(**kinds, time_s=readings.time_s.detach().clone())


def picked(readings: Readings, rows: list[int]) -> Readings:
    """The same readings with ``rows`` alone, in that order."""
    index = torch.tensor(rows, device=readings.time_s.device)
    kinds = {k: {g: t[index] for g, t in getattr(readings, k).items()} for k in KINDS}
    return Readings(**kinds, time_s=readings.time_s[index])


def stacked(rows: list[Readings]) -> Readings:
    """Readings of one replica each, as one batch."""
    kinds = {k: {g: torch.cat([getattr(r, k)[g] for r in rows]) for g in getattr(rows[0], k)} for k in KINDS}
    return Readings(**kinds, time_s=torch.cat([r.time_s for r in rows]))


def require_same(
    check: str,
    nameplate: Nameplate,
    got: Readings,
    want: Readings,
    *,
    when: str,
    got_is: str,
    want_is: str,
    why: str,
    label: Callable[[int], str] = lambda row: f"replica {row}",
) -> None:
    """Require equality of every value (``==``, no tolerance); else name the first signal, replica and both values."""
    pairs = [(kind, group, tensor, getattr(want, kind)[group]) for kind, group, tensor in tensors(got)]
    for kind, group, a, b in [*pairs, ("time_s", "", got.time_s, want.time_s)]:
        if torch.equal(a, b):
            continue
        where = first((a != b).cpu())
        if where is None:  # a NaN equals nothing and is the business of check 'finite'
            continue
        name = place(nameplate, kind, group, where[1:]) if group else "time_s"
        fail(
            check,
            f"{name} of {label(where[0])} {when}: {got_is} {a[where].item()!r}, {want_is} {b[where].item()!r}; {why}",
        )


def require_same_state(
    check: str,
    got: Mapping[str, torch.Tensor],
    want: Mapping[str, torch.Tensor],
    *,
    got_is: str,
    want_is: str,
    why: str,
) -> None:
    """The same for snapshots, whose keys are the twin's own."""
    missing = sorted(got.keys() ^ want.keys())
    require(not missing, check, f"keys {missing} are in one snapshot only ({got_is}, {want_is}); {why}")
    for key, a in got.items():
        b = want[key]
        require(a.shape == b.shape, check, f"{key}: shape {tuple(a.shape)} {got_is}, {tuple(b.shape)} {want_is}; {why}")
        different = (a != b) & ~(a.isnan() & b.isnan()) if a.is_floating_point() else a != b
        where = first(different.cpu())
        if where is not None:
            fail(
                check,
                f"snapshot key {key!r} at {list(where)}: {got_is} {a[where].item()!r}, "
                f"{want_is} {b[where].item()!r}; {why}",
            )


def require_within(
    check: str,
    nameplate: Nameplate,
    kind: str,
    group: str,
    values: NDArray[Any],
    where: NDArray[np.bool_],
    *,
    when: str,
    slack: float = 0.0,
) -> None:
    """Require ``values`` ``[..., N, signals]`` finite, and in their ranges where ``where`` ``[..., N]``."""
    declared = nameplate.group(group)

    def named(index: tuple[int, ...]) -> str:
        row = f" of replica {index[0]}" if values.ndim > 2 else ""
        return f"{place(nameplate, kind, group, index[-2:])}{row} {when}: {values[index]}"

    bad = first(~np.isfinite(values))
    if bad is not None:
        fail(check, f"{named(bad)}; every value must be finite, absent slots included")
    lower, upper = declared.lower(kind).astype(values.dtype), declared.upper(kind).astype(values.dtype)
    margin = (slack * (declared.upper(kind) - declared.lower(kind))).astype(values.dtype)
    bad = first(((values < lower - margin) | (values > upper + margin)) & where[..., None])
    if bad is not None:
        signal = getattr(declared, kind)[bad[-1]]
        fail(
            check,
            f"{named(bad)} {signal.unit} is outside the nameplate's [{signal.minimum}, {signal.maximum}]; "
            "limit it as the instrument would, or widen the range",
        )
