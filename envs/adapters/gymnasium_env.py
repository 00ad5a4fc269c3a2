"""One replica of a site as a Gymnasium environment: one agent that sees and commands every asset."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import ContractError
from ..task import Task
from ..twin import Readings, Twin
from .episodes import Episodes
from .spaces import ActionMap, Float32, SignalView, Space, split_by_group


class TwinEnv(gymnasium.Env[Float32, NDArray[Any]]):
    """A site behind ``gymnasium.Env``.

    Observation: measured signals of all assets in physical units, in the order of :attr:`Nameplate.agents`. Action:
    commands likewise, or in [-1, 1] with ``normalised_actions``. Empty slots show zero (or the end of the range nearest
    to it), and their actions are ignored. Reward: the sum over all assets present. ``info["costs"]["group/cost"]``:
    sums likewise; ``info["present"]``: which agents exist, ``[agents]`` bool. The task's end terminates, its horizon
    truncates.

    ``twin`` has one replica; the environment owns it. The first episode after ``reset(seed=s)`` is the twin's episode
    ``s``, those after ``reset()`` follow from it.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]  # never changed, unlike Gymnasium's

    def __init__(
        self, twin: Twin, task: Task, *, normalised_actions: bool = False, render_mode: str | None = None
    ) -> None:
        if twin.n_replicas != 1:
            raise ContractError(f"TwinEnv wraps one replica, this twin has {twin.n_replicas}; use TwinVectorEnv")
        if render_mode is not None:
            raise ContractError(f"render_mode {render_mode!r}: twins are not rendered; leave it None")
        self.twin, self.task = twin, task
        self.render_mode = None
        self._episodes = Episodes(twin, task)
        self._view = SignalView(twin.nameplate)
        self._map = ActionMap.of_site(twin.nameplate, normalised=normalised_actions)
        self.observation_space: Space = self._view.space()
        self.action_space: Space = self._map.space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start an episode; ``options`` are not used."""
        super().reset(seed=seed)
        readings = self._episodes.begin(seeds=[seed])
        return self._view.joint(readings)[0], self._info(readings)

    def step(self, action: NDArray[Any]) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Advance by one step of the twin's ``dt_s``."""
        joint = self._map.commands(np.asarray(action)[None])
        outcome = self._episodes.step(split_by_group(self.twin.nameplate, joint))
        info = self._info(outcome.readings)
        info["costs"] = {name: float(cost[0]) for name, cost in outcome.team_costs().items()}
        return (
            self._view.joint(outcome.readings)[0],
            float(outcome.team_reward()[0]),
            bool(outcome.terminated[0]),
            bool(outcome.truncated[0]),
            info,
        )

    def _info(self, readings: Readings) -> dict[str, Any]:
        return {"present": np.concatenate([p.cpu().numpy()[0] for p in readings.present.values()])}
