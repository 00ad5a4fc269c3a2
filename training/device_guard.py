"""The only place of a device's rollout where the host looks: has an episode ended, is a number not finite?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..envs.nameplate import Nameplate
from ..envs.twin import Readings
from .numerical_guard import check_features, check_readings, check_reward

Tensor = torch.Tensor


class DeviceGuard:
    """Reads two flags at a time; arrays are copied to the host only to say which number is wrong."""

    def __init__(self, nameplate: Nameplate, groups: Sequence[str], first_replica: int) -> None:
        self._nameplate = nameplate
        self._groups = tuple(groups)
        self._first_replica = first_replica

    def look(
        self,
        readings: Readings,
        where: Callable[[int], str],
        reward: Mapping[str, Tensor] | None = None,
        before: Readings | None = None,
        done: Tensor | None = None,
    ) -> bool:
        """Whether any row is ``done`` ``[B]``.

        Raises NumericalError for a measured signal of a present asset, or a reward ``[B, N]`` of one that was present
        ``before``, that is not finite; ``where`` tells a row's step and episode.
        """
        rewards, earlier = reward or {}, readings if before is None else before
        doubts = [_doubt(readings.measured[n], readings.present[n][..., None]) for n in self._groups]
        doubts += [_doubt(values, earlier.present[name]) for name, values in rewards.items()]
        is_bad = torch.stack(doubts).any()
        ended, bad = torch.stack([torch.zeros_like(is_bad) if done is None else done.any(), is_bad]).tolist()
        if bad:
            check_readings(readings, self._nameplate, self._groups, self._first_replica, where, hidden=False)
            for name, values in rewards.items():
                present = earlier.present[name].numpy(force=True)
                check_reward(values.numpy(force=True), present, self._nameplate, name, self._first_replica, where)
        return bool(ended)

    def look_at_features(self, features: Tensor, name: str) -> None:
        """Raise NumericalError for the first feature of a rollout ``[T, B, N, F]`` that is not finite."""
        if bool(torch.isfinite(features).all()):
            return
        for t, x in enumerate(features.numpy(force=True)):
            check_features(x, self._nameplate, name, self._first_replica, _at_step(t))


def _at_step(t: int) -> Callable[[int], str]:
    return lambda row: f"step {t} of the rollout"


def _doubt(values: Tensor, present: Tensor) -> Tensor:
    """Whether any of ``values`` of somebody present is not finite, a scalar."""
    return (~torch.isfinite(values) & present).any()
