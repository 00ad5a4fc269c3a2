"""Ray Tune's schedulers, made repeatable: what chance decides is a hash, and what they know can be saved and restored.

Ray keeps a scheduler's state in memory alone: a search that is restored forgets its rungs and scores.
:class:`SchedulerMemory` saves them with the rest of the search.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining

from .tune_space import Space
from .tune_trial import NUMBER, TRIAL

_LOG = logging.getLogger(__name__)

_PBT_FIELDS = ("orig_tag", "last_score", "last_train_time", "last_perturbation_time", "last_result")


class RememberingFifo(FIFOScheduler):
    """Every trial runs to its end."""

    def memory(self) -> dict[str, Any]:
        return {}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Nothing is remembered."""


class RememberingAsha(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934)."""

    def memory(self) -> dict[str, Any]:
        """Scores of every rung, by trial."""
        return {"rungs": [[dict(recorded) for _, recorded in b._rungs] for b in self._brackets]}

    def recall(self, memory: Mapping[str, Any]) -> None:
        for bracket, rungs in zip(self._brackets, memory["rungs"], strict=True):
            for (_, recorded), kept in zip(bracket._rungs, rungs, strict=True):
                recorded.clear()
                recorded.update(kept)


class RepeatablePbt(PopulationBasedTraining):
    """Synchronous population-based training (Jaderberg et al. 2017, arXiv 1711.09846): all trials meet at each
    perturbation, so that nothing depends on which was faster."""

    def __init__(self, space: Space, seed: int, time_attr: str, interval: float) -> None:
        super().__init__(
            time_attr=time_attr,
            perturbation_interval=interval,
            hyperparam_mutations={TRIAL: dict.fromkeys(space.domains, _never)},
            quantile_fraction=0.25,
            synch=True,
            log_config=False,
        )
        self._space, self._seed = space, seed
        self._recalled: Mapping[str, Mapping[str, Any]] = {}

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        values = {k: v for k, v in trial_to_clone.config[TRIAL].items() if k != NUMBER}
        number = trial.config[TRIAL][NUMBER]
        time = self._trial_state[trial_to_clone].last_train_time
        explored = self._space.explore(values, self._seed, number, time)
        return {TRIAL: {NUMBER: number, **explored}}, {}

    def _checkpoint_or_exploit(self, trial: Trial, *arguments: Any) -> None:
        before = random.getstate()
        time = self._trial_state[trial].last_train_time
        random.seed(f"{self._seed}/{trial.config[TRIAL][NUMBER]}/{time}")  # it picks whom to follow
        try:
            super()._checkpoint_or_exploit(trial, *arguments)
        finally:
            random.setstate(before)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        known = self._recalled.get(trial.trial_id)
        if known is None:
            return
        trial.temporary_state.saving_to = None  # whatever was being saved when the search stopped
        state, manager = self._trial_state[trial], trial.run_metadata.checkpoint_manager
        saved = manager.latest_checkpoint_result if manager is not None else None
        saved_time = saved.metrics.get(self._time_attr, 0) if saved is not None else 0
        for field in _PBT_FIELDS:
            setattr(state, field, known[field])
        if saved_time < known["last_train_time"]:  # its newest checkpoint was lost: it repeats what led to its score
            state.last_train_time, state.last_score = saved_time, None
        elif trial.status == Trial.PENDING and saved is not None:
            # As it was: waiting for the others with its checkpoint.
            trial.set_status(Trial.PAUSED)  # type: ignore[no-untyped-call]  # Ray leaves it untyped

    def memory(self) -> dict[str, Any]:
        """Where every trial stands, and when they meet next."""
        return {
            "next": self._next_perturbation_sync,
            "trials": {
                trial.trial_id: {field: getattr(state, field) for field in _PBT_FIELDS}
                for trial, state in self._trial_state.items()
            },
        }

    def recall(self, memory: Mapping[str, Any]) -> None:
        """For trials that are added from now on."""
        self._next_perturbation_sync = memory["next"]
        self._recalled = memory["trials"]


class SchedulerMemory(Callback):
    """Saves the scheduler with the search, and says how trials fare."""

    def __init__(self, scheduler: RememberingFifo | RememberingAsha | RepeatablePbt, metric: str) -> None:
        self._scheduler, self._metric = scheduler, metric

    def get_state(self) -> dict[str, Any]:
        return {"scheduler": self._scheduler.memory()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._scheduler.recall(state["scheduler"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        figure = result.get(self._metric)
        shown = "-" if figure is None else f"{figure:.6g}"
        _LOG.info("trial %s: iteration %s, %s %s", trial, result.get("iteration"), self._metric, shown)


def _never() -> float:
    raise RuntimeError("new values come from the space, not from here")
