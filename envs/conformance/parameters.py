"""Parameters can be read and set, belong to their replica alone, and are part of the state."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import TwinloopError
from ..twin import Readings, Twin
from .case import TwinCase
from .comparison import copy_of, fail, first, picked, require, require_same

_N = 3
_CHANGED = 1
_OTHERS = [0, 2]


def check_parameters(case: TwinCase) -> None:
    """Declared = readable; what is set reads back; other replicas do not notice; restore brings the old values back."""
    twin = case.make_twin(_N)
    seeds = case.seed_tensor(twin)
    twin.reset(seeds)
    before = {name: value.clone() for name, value in twin.parameters().items()}
    _require_declared(twin, before)
    if not before:
        return

    snapshot = twin.snapshot()
    want = _run(case, twin, seeds)
    twin.restore(snapshot)
    for spec in twin.parameter_specs:
        old = before[spec.name]
        new = old.clone()
        middle = 0.5 * (spec.minimum + spec.maximum)
        new[_CHANGED] = old[_CHANGED] + 0.25 * (middle - old[_CHANGED]) + 0.01 * (spec.maximum - spec.minimum)
        new[_CHANGED].clamp_(spec.minimum, spec.maximum)
        twin.set_parameters({spec.name: new})
        _require_values(twin, {**before, spec.name: new}, f"after {spec.name} of replica {_CHANGED} was set")
        for got, expected in zip(_run(case, twin, seeds), want, strict=True):
            require_same(
                "parameters",
                twin.nameplate,
                picked(got, _OTHERS),
                picked(expected, _OTHERS),
                when=f"after {spec.name} of replica {_CHANGED} was set",
                got_is="now",
                want_is="before",
                why="a parameter belongs to its own replica",
                label=lambda row: f"replica {_OTHERS[row]}",
            )
        twin.restore(snapshot)
        _require_values(twin, before, "after restore of a snapshot taken before they were set")
    for got, expected in zip(_run(case, twin, seeds), want, strict=True):
        require_same(
            "parameters",
            twin.nameplate,
            got,
            expected,
            when="after parameters were set and the snapshot restored",
            got_is="now",
            want_is="before",
            why="parameters are part of the state that a snapshot holds",
        )
    _require_unknown_refused(twin)


def _require_declared(twin: Twin, values: Mapping[str, torch.Tensor]) -> None:
    names = [spec.name for spec in twin.parameter_specs]
    require(len(set(names)) == len(names), "parameters", f"names repeat in parameter_specs: {names}")
    require(
        set(names) == set(values),
        "parameters",
        f"parameter_specs names {sorted(names)}, parameters() gives {sorted(values)}",
    )
    for spec in twin.parameter_specs:
        value = values[spec.name]
        require(
            tuple(value.shape) == (_N,),
            "parameters",
            f"{spec.name} is {tuple(value.shape)}, expected {(_N,)} (replicas)",
        )
        numbers = value.detach().double().cpu()
        slack = 1e-6 * (spec.maximum - spec.minimum)  # bounds such as 0.1 have no exact float32
        bad = first(~((numbers >= spec.minimum - slack) & (numbers <= spec.maximum + slack)))
        if bad is not None:
            fail(
                "parameters",
                f"{spec.name} of replica {bad[0]} is {numbers[bad].item()} {spec.unit}, outside its declared "
                f"[{spec.minimum}, {spec.maximum}]",
            )


def _require_values(twin: Twin, want: Mapping[str, torch.Tensor], when: str) -> None:
    got = twin.parameters()
    for name, value in want.items():
        bad = first((got[name] != value).cpu())
        if bad is not None:
            fail(
                "parameters",
                f"{name} of replica {bad[0]} {when} reads {got[name][bad].item()}, expected {value[bad].item()}",
            )


def _require_unknown_refused(twin: Twin) -> None:
    try:
        twin.set_parameters({"no_such_parameter": torch.zeros(_N, dtype=twin.dtype, device=twin.device)})
    except (TwinloopError, KeyError, ValueError):
        return
    require(
        False, "parameters", "set_parameters accepts the unknown name 'no_such_parameter'; refuse it, it may be a slip"
    )


def _run(case: TwinCase, twin: Twin, seeds: torch.Tensor) -> list[Readings]:
    return [copy_of(twin.step(case.commands(twin, seeds, step))) for step in range(case.steps)]
