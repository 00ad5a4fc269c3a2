"""Which plants a trained policy may serve: the very site that it learnt on, or any with the same signals."""

from __future__ import annotations

from ..agents.analytic_settings import AnalyticConfiguration
from ..agents.artifact import Scope
from ..agents.sb3_settings import Sb3Configuration
from ..agents.taught_settings import TaughtConfiguration
from ..envs.errors import ConfigurationError
from ..envs.nameplate import Nameplate
from .configuration import TrainConfiguration
from .problem import Problem


def scope_of(config: TrainConfiguration, nameplate: Nameplate) -> Scope:
    """A policy that learnt on layouts that differ per replica is for the interface, any other for its very site."""
    if config.scope != "auto":
        return config.scope
    return "interface" if any(g.statics and not g.static_values for g in nameplate.groups) else "site"


def check_scope(config: TrainConfiguration, problem: Problem) -> None:
    """Raise :class:`ConfigurationError` for weights of each asset's own where the policy shall serve other sites.

    An artifact refuses them too, but only once the run has ended.
    """
    nameplate = problem.nameplate()
    key = separate_weights(config)
    if key is None or scope_of(config, nameplate) == "site":
        return
    own = [name for name in problem.layouts(nameplate) if nameplate.group(name).n_assets > 1]
    if own:
        said = "scope interface" if config.scope == "interface" else "scope auto, with layouts that differ per replica"
        raise ConfigurationError(
            f"{said}: with {key} each asset of group {own[0]!r} has weights of its own, which serve this very site "
            "alone; set scope: site, or let the assets share weights"
        )


def separate_weights(config: TrainConfiguration) -> str | None:
    """What gives each asset weights of its own in the artifact of a run, None where a group shares them."""
    learner = config.learner
    if isinstance(learner, AnalyticConfiguration):
        short = learner.short_horizon
        return "learner.short_horizon.weights separate" if short is not None and short.weights == "separate" else None
    if isinstance(learner, TaughtConfiguration):
        return None
    if isinstance(learner, Sb3Configuration):
        federated = learner.federated
        if federated is None:
            return None
        if federated.average_every is None:
            return "learner.federated without average_every"
        # Artifacts are made at these: between two means every learner has its own weights.
        judged = config.evaluation.every if config.early_stop is not None or config.artifact == "best" else 0
        plant = config.evaluation.plant.every if config.evaluation.plant is not None else 0
        for key, number in (
            ("iterations", config.iterations or 0), ("evaluation.every", judged), ("evaluation.plant.every", plant)
        ):  # fmt: skip
            if number % federated.average_every:
                return f"{key} {number} between two means of learner.federated.average_every {federated.average_every}"
        return None
    return f"learner.weights separate ({learner.kind})" if learner.weights == "separate" else None
