"""What a rollout keeps of a shield: the action that was obeyed beside the one that was chosen, and its price."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..agents.action_layout import ActionLayout, Float32
from ..envs.twin import Tensors
from .group_recorder import GroupRecorder
from .shielded_twin import ShieldedTwin, actions_of


class Shielding:
    """Asks a shielded twin what became of the newest step; ``penalty`` is the reward lost a unit of change."""

    def __init__(self, twin: ShieldedTwin, penalty: float) -> None:
        self._twin = twin
        self._penalty = np.float32(penalty)

    def obeyed(
        self,
        recorders: Mapping[str, GroupRecorder],
        layouts: Mapping[str, ActionLayout],
        costs: dict[str, list[float]],
    ) -> Tensors:
        """Record each group's executed action and penalty, add the shield's costs, return what the twin obeyed."""
        made = self._twin.last()
        for name, recorder in recorders.items():
            layout = layouts[name]
            sent = made.sent[name].numpy(force=True).astype(np.float32)
            executed = actions_of(layout, sent)
            untouched = ~made.intervened[name]
            executed[untouched] = _limited(recorder.newest_actions()[untouched], layout)
            recorder.obey(executed, made.change[name] * self._penalty)
        for cost, value in made.costs().items():
            costs.setdefault(cost, []).append(value)
        return made.sent


def _limited(actions: Float32, layout: ActionLayout) -> Float32:
    """Actions as the twin obeys them without a shield: continuous ones inside [-1, 1]."""
    limited = actions.copy()
    n = len(layout.continuous)
    np.clip(actions[..., :n], -1.0, 1.0, out=limited[..., :n])
    return limited
