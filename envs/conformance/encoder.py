"""Does an encoder keep its contract?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoder import Encoder, MaskingEncoder
from ..nameplate import Nameplate
from ..twin import Observation
from .comparison import fail, first, require
from .excitation import random_observation, rows_of

_CALLS = 3


def check_encoder(
    encoder: Encoder, nameplate: Nameplate, *, n_rows: int = 6, seed: int = 0, tolerance: float = 1e-5
) -> None:
    """Check an encoder against the contract of :class:`~twinloop.envs.encoder.Encoder`.

    Observations are drawn inside the nameplate's ranges, their corners included, some slots without an asset.
    ``tolerance`` is how far a feature may differ between numpy and torch, and between a row in a batch and alone.

    Where the encoder tells what is legal (:class:`~twinloop.envs.encoder.MaskingEncoder`), the masks are checked too.

    Raises :class:`~twinloop.envs.errors.ContractError` at the first breach, with the check, the asset, the feature and
    both values.
    """
    lacking = [name for name in vars(Encoder) if not name.startswith("_") and not hasattr(encoder, name)]
    require(not lacking, "declaration", f"{type(encoder).__name__} lacks: {', '.join(lacking)}")
    nameplate.group(encoder.group)
    _check_settings(encoder)
    for absent in (False, True):
        calls = [random_observation(nameplate, n_rows, seed + k, absent=absent) for k in range(_CALLS)]
        calls = [Observation(c.measured, calls[0].statics, calls[0].present, c.dt_s) for c in calls]
        outcome = _run(encoder, calls, "numpy")
        _require_features(encoder, calls, outcome)
        _require_close(
            "numpy and torch", encoder, _run(encoder, calls, "torch"), outcome, "with torch", "with numpy", tolerance
        )
        _require_close("determinism", encoder, _run(encoder, calls, "numpy"), outcome, "asked again", "at first", 0.0)
        for row in range(n_rows):
            alone = _run(encoder, [rows_of(c, np.array([row])) for c in calls], "numpy")
            batch = [features[row : row + 1] for features in outcome]
            _require_close("rows", encoder, alone, batch, f"row {row} alone", "in the batch", tolerance)
        _check_absent(encoder, calls, outcome, tolerance)
        if isinstance(encoder, MaskingEncoder):
            _check_legal(encoder, nameplate, calls)


def _check_settings(encoder: Encoder) -> None:
    settings = encoder.settings()
    try:
        again = json.loads(json.dumps(settings))
    except TypeError as error:
        fail("settings", f"settings() {settings!r} can't be JSON: {error}")
    require(
        again == settings, "settings", f"settings() {settings!r} comes back from JSON as {again!r}; use JSON types only"
    )


def _check_absent(encoder: Encoder, calls: list[Observation], want: list[NDArray[Any]], tolerance: float) -> None:
    """Readings of empty slots must not reach the features of anybody."""
    other = []
    for call in calls:
        empty = ~call.present[encoder.group][..., None]
        measured = np.where(empty, 0.5 * call.measured[encoder.group], call.measured[encoder.group])
        statics = np.where(empty, 0.5 * call.statics[encoder.group], call.statics[encoder.group])
        other.append(
            Observation(
                {**call.measured, encoder.group: measured},
                {**call.statics, encoder.group: statics},
                call.present,
                call.dt_s,
            )
        )
    got = _run(encoder, other, "numpy")
    _require_close("absent", encoder, got, want, "with other readings in the empty slots", "before", tolerance)


def _check_legal(encoder: MaskingEncoder, nameplate: Nameplate, calls: list[Observation]) -> None:
    """Masks: their shape, a way out of every state, the same from numpy, torch and any history, row by row."""
    commands = [s for s in nameplate.group(encoder.group).commanded if s.levels is not None]
    counts = [len(s.levels or ()) for s in commands]
    at_first = [_legal(encoder, call, "numpy") for call in calls]
    for number, (call, flags) in enumerate(zip(calls, at_first, strict=True)):
        shape = (*call.present[encoder.group].shape, sum(counts))
        require(
            flags.shape == shape and flags.dtype == np.bool_,
            "legal",
            f"legal of call {number} is {flags.dtype} {flags.shape}, expected bool {shape}: one flag a level of "
            f"{', '.join(s.name for s in commands) or 'no discrete command at all'}",
        )
        start = 0
        for signal, count in zip(commands, counts, strict=True):
            bad = first(~flags[..., start : start + count].any(-1))
            if bad is not None:
                fail(
                    "legal",
                    f"{encoder.group}, slot {bad[1]}, {signal.name}, row {bad[0]} of call {number}: no level is legal; "
                    "leave at least one, also for an empty slot",
                )
            start += count
        _require_same(encoder, _legal(encoder, call, "torch"), flags, "with torch", "with numpy", number)
        for row in range(len(flags)):
            alone = _legal(encoder, rows_of(call, np.array([row])), "numpy")
            _require_same(encoder, alone, flags[row : row + 1], f"row {row} alone", "in the batch", number)
    for number in reversed(range(len(calls))):
        encoder.encode(*_inputs(encoder, calls[-1 - number], np.array), _start(encoder, calls[0]), calls[0].dt_s)
        again = _legal(encoder, calls[number], "numpy")
        _require_same(encoder, again, at_first[number], "after other calls", "at first", number)


def _require_same(
    encoder: Encoder, got: NDArray[Any], want: NDArray[Any], got_is: str, want_is: str, call: int
) -> None:
    bad = first(got != want)
    if bad is not None:
        row, asset, level = bad
        fail(
            "legal",
            f"{encoder.group}, slot {asset}, level {level} of all, row {row} of call {call}: {got_is} {got[bad]}, "
            f"{want_is} {want[bad]}; legal is a function of measured, statics and present alone",
        )


def _legal(encoder: MaskingEncoder, call: Observation, library: str) -> NDArray[Any]:
    turn: Callable[[Any], Any] = torch.from_numpy if library == "torch" else np.array
    return np.asarray(encoder.legal(*_inputs(encoder, call, turn)))


def _inputs(encoder: Encoder, call: Observation, turn: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    measured, statics, present = (turn(v[encoder.group].copy()) for v in (call.measured, call.statics, call.present))
    return measured, statics, present


def _start(encoder: Encoder, call: Observation) -> Mapping[str, Any]:
    n_rows, n_assets = call.present[encoder.group].shape
    return encoder.start(n_rows, n_assets, call.measured[encoder.group])


def _require_features(encoder: Encoder, calls: list[Observation], outcome: list[NDArray[Any]]) -> None:
    for number, (call, features) in enumerate(zip(calls, outcome, strict=True)):
        present = call.present[encoder.group]
        shape = (*present.shape, encoder.n_features)
        require(features.shape == shape, "shapes", f"features of call {number} are {features.shape}, expected {shape}")
        bad = first(~np.isfinite(features))
        if bad is not None:
            fail(
                "values",
                f"{_named(encoder, bad, number)} is {features[bad]}; features are finite for telemetry in range",
            )
        bad = first((features != 0) & ~present[..., None])
        if bad is not None:
            fail("absent", f"{_named(encoder, bad, number)} is {features[bad]}; an empty slot has zero features")


def _require_close(
    check: str,
    encoder: Encoder,
    got: list[NDArray[Any]],
    want: list[NDArray[Any]],
    got_is: str,
    want_is: str,
    tolerance: float,
) -> None:
    for number, (a, b) in enumerate(zip(got, want, strict=True)):
        bad = first(~(np.abs(a - b) <= tolerance))
        if bad is not None:
            fail(check, f"{_named(encoder, bad, number)}: {got_is} {a[bad]}, {want_is} {b[bad]}")


def _named(encoder: Encoder, index: tuple[int, ...], call: int) -> str:
    row, asset, feature = index
    return f"{encoder.group}, slot {asset}, feature {feature}, row {row} of call {call}"


def _run(encoder: Encoder, calls: list[Observation], library: str) -> list[NDArray[Any]]:
    """Features of calls in a row, memory handed on; checks the memory's axis and that inputs stay as they were."""
    group = encoder.group
    n_rows, n_assets = calls[0].present[group].shape
    turn: Callable[[Any], Any] = torch.from_numpy if library == "torch" else np.array
    memory: Mapping[str, Any] = encoder.start(n_rows, n_assets, turn(calls[0].measured[group].copy()))
    found = []
    for call in calls:
        inputs = [turn(v[group].copy()) for v in (call.measured, call.statics, call.present)]
        features, after = encoder.encode(inputs[0], inputs[1], inputs[2], memory, call.dt_s)
        for name, given, original in zip(
            ("measured", "statics", "present"), inputs, (call.measured, call.statics, call.present), strict=True
        ):
            changed = first(np.asarray(given) != original[group])
            require(changed is None, "ownership", f"encode changed the {name} that it was given, at {changed}")
        require(
            set(after) == set(memory), "memory", f"encode returns memory {sorted(after)}, start gave {sorted(memory)}"
        )
        for name, array in after.items():
            require(
                tuple(array.shape) == tuple(memory[name].shape) and len(array) == n_rows,
                "memory",
                f"memory {name!r} is {tuple(array.shape)} after encode, {tuple(memory[name].shape)} at start; "
                f"it keeps its shape and leads with {n_rows} rows",
            )
        memory = after
        found.append(np.asarray(features).copy())
    return found
