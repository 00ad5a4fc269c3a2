"""What a run drives, whatever it learns with: one iteration after another, saved and restored at every boundary."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

from ..agents.analytic_settings import AnalyticConfiguration
from ..agents.forward import PolicyNetwork
from ..agents.ppo_settings import PpoConfiguration
from ..agents.sac_settings import SacConfiguration
from ..agents.sb3_settings import Sb3Configuration
from ..agents.taught_settings import TaughtConfiguration
from ..envs.encoder import Encoder
from ..envs.errors import ConfigurationError
from ..envs.nameplate import Nameplate
from .configuration import TrainConfiguration
from .problem import Problem
from .run_length import n_iterations

_LOG = logging.getLogger(__name__)


class Learning(Protocol):
    """A learner with its source of experience. ``restore(boundary()())`` is exact at every iteration's end."""

    iteration: int
    agent_steps: int
    nameplate: Nameplate
    encoders: dict[str, Encoder]

    @property
    def n_iterations(self) -> int: ...
    def iterate(self) -> dict[str, float]:
        """Gather, learn, and return the iteration's figures."""
        ...

    def evaluate(self) -> float:
        """Mean reward an agent-step without exploration, on replicas that are not learnt from."""
        ...

    def export(self) -> Mapping[str, PolicyNetwork]:
        """What acts, a group, as an artifact ships it."""
        ...

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to all that the rest of the run depends on; calling the result makes plain values of it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


def make_learning(config: TrainConfiguration, problem: Problem, stack: ExitStack) -> Learning:
    """The learner that a configuration names; ``stack`` closes what it holds open."""
    settings = config.learner
    if isinstance(settings, AnalyticConfiguration):
        if settings.short_horizon is not None:
            from .short_horizon_trainer import ShortHorizonTrainer

            return ShortHorizonTrainer(config, problem, settings, settings.short_horizon)
        from .analytic_trainer import AnalyticTrainer

        return AnalyticTrainer(config, problem, settings)
    if isinstance(settings, PpoConfiguration):
        if config.device != "cpu":
            from .device_trainer import DeviceTrainer, device_obstacle

            obstacle = device_obstacle(config)
            if obstacle is None:
                return DeviceTrainer(config, problem)
            _LOG.warning(
                "device %s: the twin runs there, but learning stays on the host, because %s works on the host alone",
                config.device,
                obstacle,
            )
        from .trainer import Trainer
        from .workers import make_collector

        if config.learner_actors is None:
            return Trainer(config, problem, stack.enter_context(make_collector(problem, config)))
        from .learner_actors import LearnerActors
        from .ray_session import RaySession

        # Opened here, so that the session outlives whoever else uses it.
        n_groups = len(problem.layouts(problem.nameplate()))
        session = RaySession(config.rollout.ray_address, config.rollout.workers + n_groups)
        stack.callback(session.close)
        ray = session.open()
        trainer = Trainer(config, problem, stack.enter_context(make_collector(problem, config)))
        trainer.learn_in(stack.enter_context(LearnerActors(trainer.recipes, config.learner_actors, ray)))
        return trainer
    if isinstance(settings, TaughtConfiguration):
        from .taught_trainer import TaughtTrainer

        return TaughtTrainer(config, problem, settings)
    if isinstance(settings, SacConfiguration):
        from .off_policy_trainer import OffPolicyTrainer
        from .workers import make_collector

        return OffPolicyTrainer(config, problem, stack.enter_context(make_collector(problem, config)))
    if settings.federated is not None:
        from .federated_trainer import FederatedTrainer

        return stack.enter_context(FederatedTrainer(config, problem))
    from .sb3_trainer import Sb3Trainer

    return Sb3Trainer(config, problem)


def check_learning(config: TrainConfiguration, problem: Problem) -> None:
    """Raise for what a learner refuses only once it sees the site, before anything is written."""
    if isinstance(config.learner, SacConfiguration | AnalyticConfiguration):
        from .differentiable_commands import check_continuous

        check_continuous(problem, config.learner.kind)
    if isinstance(config.learner, SacConfiguration):
        _check_warm_up(config, config.learner, problem)
    if isinstance(config.learner, TaughtConfiguration):
        from .taught_trainer import check as check_taught

        check_taught(problem)
    if isinstance(config.learner, Sb3Configuration):
        if config.learner.federated is None:
            from .sb3_trainer import check
        else:
            from .federated_trainer import check
        check(config, problem)


def _check_warm_up(config: TrainConfiguration, settings: SacConfiguration, problem: Problem) -> None:
    nameplate, rollout = problem.nameplate(), config.rollout
    n_assets = sum(nameplate.group(name).n_assets for name in problem.layouts(nameplate))
    total = n_iterations(config, n_assets) * rollout.replicas * rollout.steps
    if settings.warm_up > total - rollout.replicas * rollout.steps:
        raise ConfigurationError(
            f"learner.warm_up {settings.warm_up}: the whole run gathers {total} joint steps, "
            f"{rollout.replicas * rollout.steps} an iteration, so that nothing would be learnt; "
            "make the run longer, or the warm-up shorter"
        )
