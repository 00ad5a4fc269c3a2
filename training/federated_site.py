"""One asset's own site: a twin of the whole site in which that asset alone learns and all others stay neutral."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..agents.forward import PolicyNetwork
from ..agents.stable_baselines import TwinVecEnv
from ..envs.errors import RunError
from .configuration import TrainConfiguration
from .episode_tally import EpisodeTally
from .problem import Problem
from .sb3_learner import Sb3Learner
from .sb3_options import recipe
from .sb3_state import Generators
from .sb3_trainer import derived_seed, penalised, sb3_settings
from .seeds import row_seeds
from .shielded_twin import ShieldedTwin
from .workers import one_thread

_FIRST_PURPOSE = -100  # seeds of assets count down from here, four an asset
_HELD = 2
Weights = Mapping[str, torch.Tensor]


class FederatedSite:
    """A learner of SB3 for one asset; what runs in its Ray actor.

    ``number`` counts assets over all groups, ``column`` is the asset's place in its group. Where weights will be
    averaged all assets of a group begin with the same ones, without which a mean means little (McMahan et al. 2017,
    arXiv 1602.05629, figure 1); generators and seeds of the twin are each asset's own.
    """

    def __init__(
        self, config: TrainConfiguration, problem: Problem, group: str, column: int, number: int, n_iterations: int
    ) -> None:
        torch.set_num_threads(1)
        settings = sb3_settings(config)
        federated = settings.federated
        nameplate = problem.nameplate()
        served, layout = nameplate.group(group), problem.layouts(nameplate)[group]
        self._name = f"{group}-{served.assets[column]}"
        self._state_dir = None if federated is None or federated.state_dir is None else Path(federated.state_dir)
        averages = federated is not None and federated.average_every is not None
        names = [g.name for g in nameplate.groups]
        twin = problem.twin(config.rollout.replicas)
        shield = twin if isinstance(twin, ShieldedTwin) else None
        self._tally = EpisodeTally(config.rollout.replicas, {group: [column]}, shield)
        env = TwinVecEnv(
            twin,
            problem.task(),
            encoder=problem.encoders(nameplate)[group],
            group=group,
            assets=[column],
            controlled=[served.commanded[c].name for c in layout.columns],
            on_step=self._tally,
            reward_of=penalised(config, twin, group),
        )
        purpose = _FIRST_PURPOSE - 4 * number
        env.seed(int(row_seeds(config.seed, torch.tensor([purpose]))[0]) >> 1)
        shared = _FIRST_PURPOSE + 1 + names.index(group)
        cuda = str(settings.options.get("device", "cpu")).startswith("cuda")
        with Generators(derived_seed(config.seed, shared if averages else purpose - 1), cuda=cuda).current():
            made = recipe(config, settings, group, layout)
            self._learner = Sb3Learner(made, env, layout, derived_seed(config.seed, purpose - 2), n_iterations)
        self._generators = Generators(derived_seed(config.seed, purpose - 3), cuda=cuda)
        self._held: dict[int, Callable[[], dict[str, Any]]] = {}
        self._hold(0)

    def process_id(self) -> int:
        return os.getpid()

    def iterate(self, iteration: int) -> tuple[dict[str, float], dict[str, float], int]:
        """The round after ``iteration``: figures of the learner, of what happened, and how many agent-steps."""
        with one_thread(), self._generators.current():
            self._learner.collect(iteration)
            figures = self._learner.train()
        told, n_steps = self._tally.take()
        self._hold(iteration + 1)
        return figures, told, n_steps

    def weights(self) -> dict[str, torch.Tensor]:
        """All that leaves this site while it learns, and that only to be averaged."""
        return self._learner.weights()

    def set_weights(self, weights: Weights, iteration: int) -> None:
        """Take the mean of all after ``iteration``."""
        self._learner.set_weights(weights)
        self._hold(iteration)

    def network(self) -> PolicyNetwork:
        """What acts, as the artifact ships it."""
        return self._learner.network()

    def state(self, iteration: int, run_key: str) -> dict[str, Any]:
        """The state after ``iteration``, one of the last two; with a ``state_dir`` it is written there and only the
        file's name and hash are returned."""
        state = self._held[iteration]()
        if self._state_dir is None:
            return state
        self._state_dir.mkdir(parents=True, exist_ok=True)
        path = self._state_dir / f"{run_key}-{self._name}-{iteration}.pt"
        partial = path.with_suffix(f".partial-{os.getpid()}")
        torch.save(state, partial)
        digest = _digest(partial)
        partial.replace(path)
        return {"file": path.name, "sha256": digest}

    def restore(self, state: Mapping[str, Any], iteration: int) -> None:
        """Go back, or on, to a state that :meth:`state` gave after ``iteration``."""
        if "file" in state:
            state = self._read(state)
        with self._generators.current():
            self._learner.restore(state["learner"])
        self._generators.restore(state["generators"])
        self._tally.restore(state["tally"])
        self._held = {}
        self._hold(iteration)

    def _read(self, about: Mapping[str, Any]) -> dict[str, Any]:
        path = (self._state_dir or Path()) / str(about["file"])
        if not path.is_file() or _digest(path) != about["sha256"]:
            raise RunError(
                f"{path}: the state of asset {self._name} is not here, or is not the one that the checkpoint means; "
                "put learner.federated.state_dir back where it was at this asset's site"
            )
        read: dict[str, Any] = torch.load(path, weights_only=True)
        return read

    def _hold(self, iteration: int) -> None:
        """Keep what a state after ``iteration`` is made of; a run may ask for it one iteration later."""
        with self._generators.current():
            learner = self._learner.boundary()
        held = {"generators": self._generators.state(), "tally": self._tally.state()}
        self._held[iteration] = lambda: {**held, "learner": learner()}
        for old in sorted(self._held)[:-_HELD]:
            del self._held[old]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
