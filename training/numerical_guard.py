"""No NaN or infinity gets into what is learnt from: it is an error that says where it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..envs.errors import NumericalError
from ..envs.nameplate import Nameplate
from ..envs.twin import Readings

Floats = NDArray[Any]
Where = Callable[[int], str]
"""From a row of the shard to words for its replica's step, episode and seed."""


def is_finite(values: Floats) -> bool:
    """Whether no NaN or infinity is among ``values``; may also be False where squares overflow."""
    return math.isfinite(np.vdot(values, values))


def check_readings(
    readings: Readings, nameplate: Nameplate, groups: Sequence[str], first_replica: int, where: Where, hidden: bool
) -> None:
    """Raise NumericalError for the first measured signal of a present asset that is not finite, of the groups that
    learn; with ``hidden``, for any signal of any group, as a central critic sees those."""
    for group in nameplate.groups:
        kinds = ("measured", "hidden") if hidden else ("measured",) if group.name in groups else ()
        for kind in kinds:
            values = getattr(readings, kind)[group.name].numpy(force=True)
            if is_finite(values):
                continue
            present = readings.present[group.name].numpy(force=True)
            names = [signal.name for signal in getattr(group, kind)]
            _complain(values, present, group.name, group.assets, names, first_replica, where, "the twin gave")


def check_reward(
    reward: Floats, present: NDArray[np.bool_], nameplate: Nameplate, name: str, first_replica: int, where: Where
) -> None:
    """Raise NumericalError for the first reward ``[B, N]`` of an asset that was present and is not finite."""
    if not is_finite(reward):
        assets = nameplate.group(name).assets
        _complain(reward[..., None], present, name, assets, ["reward"], first_replica, where, "the task gave")


def check_features(features: Floats, nameplate: Nameplate, name: str, first_replica: int, where: Where) -> None:
    """Raise NumericalError for the first feature ``[B, N, F]`` that is not finite; those of absent assets are zero."""
    if not is_finite(features):
        names = [f"feature {k}" for k in range(features.shape[-1])]
        everyone = np.ones(features.shape[:2], np.bool_)
        assets = nameplate.group(name).assets
        _complain(features, everyone, name, assets, names, first_replica, where, "the encoder gave")


def _complain(
    values: Floats,
    counts: NDArray[np.bool_],
    group: str,
    assets: Sequence[str],
    names: Sequence[str],
    first_replica: int,
    where: Where,
    giver: str,
) -> None:
    bad = ~np.isfinite(values) & counts[..., None]
    if not bad.any():
        return
    row, asset, column = (int(i) for i in np.argwhere(bad)[0])
    raise NumericalError(
        f"replica {first_replica + row}, {group}/{assets[asset]}/{names[column]}: {giver} "
        f"{values[row, asset, column]} at {where(row)}; a learner needs finite numbers, so mend the twin or the task"
    )
