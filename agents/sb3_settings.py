"""Settings of a learner of Stable-Baselines3; importing them imports neither it nor torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from ..envs.configuration import Strict

_OURS = {
    "seed": "seed, beside learner",
    "n_envs": "rollout.replicas, which times the assets of the group gives it",
    "train_freq": "rollout.steps, the steps of every slot between two rounds of training",
    "policy": "learner.policy",
    "env": "site and task",
    "verbose": "log; the SB3 figures go to metrics.jsonl and all other sinks",
    "tensorboard_log": "log; the SB3 figures go to metrics.jsonl and all other sinks",
    "stats_window_size": "rollout; figures are of one iteration",
}
"""Arguments of the algorithms that other keys of a run decide."""

_CLASSES = ("rollout_buffer_class", "replay_buffer_class", "_init_setup_model")
_AVERAGED = ("PPO", "A2C", "TRPO", "MaskablePPO", "RecurrentPPO", "ARS")
"""Algorithms all of whose learnt numbers are one set of weights learnt from fresh data, so that a mean makes sense."""


class FederatedConfiguration(Strict):
    """One learner an asset, each a Ray actor at its own site, for assets whose data must stay apart.

    An asset's own site is a twin of the whole site, with seeds of its own, in which that asset alone learns and all
    others stay at their neutral commands. Nothing but weights leaves it, and they only where averaging is asked
    (federated averaging: McMahan et al. 2017, arXiv 1602.05629), beside figures, and states for checkpoints unless
    ``state_dir`` keeps those too. A folder there grows by one file a checkpoint; nothing is deleted.
    """

    average_every: PositiveInt | None = Field(
        None, description="iterations after which all take the mean of their weights; absent: they never meet"
    )
    state_dir: str | None = Field(
        None,
        min_length=1,
        description="folder at each asset's site that keeps its checkpoints, buffers and all, so that experience never "
        "leaves it; absent: they are kept in the run's folder",
    )


class Sb3Configuration(Strict):
    """An algorithm of stable-baselines3 or sb3-contrib, shared over like assets; one learner a group.

    Each asset of each replica is one environment to SB3. An iteration is one round of collecting and training:
    ``rollout.steps`` steps of every slot are its ``n_steps`` (on-policy) or ``train_freq`` (off-policy).

    Behind a shield SB3 learns from the action that it chose, on and off policy: the shield is part of the world that
    answers it, and ``shield.intervention_penalty`` is taken off the reward of that very action. What was executed shows
    in the costs ``shield/intervened`` and ``shield/change``.
    """

    kind: Literal["sb3"] = "sb3"
    controlled: dict[str, tuple[str, ...]] | None = Field(
        None, description="commands that the policy drives, per group; absent: all of them. The rest stay neutral"
    )
    algorithm: str = Field("PPO", description="a class of stable_baselines3 or sb3_contrib, such as PPO, SAC, TQC")
    policy: str | None = Field(None, description="absent: MlpPolicy, for RecurrentPPO MlpLstmPolicy")
    options: dict[str, Any] = Field(
        {},
        description="keyword arguments of the algorithm, as its own documentation says; schedules as lin_3e-4, "
        "action noise as noise_type and noise_std, policy_kwargs.activation_fn as a class of torch.nn (RL Zoo's words)",
    )
    federated: FederatedConfiguration | None = None

    @model_validator(mode="after")
    def _options(self) -> Sb3Configuration:
        for name in self.options:
            if name in _OURS:
                raise ValueError(f"options.{name} is decided elsewhere; set {_OURS[name]}")
            if name in _CLASSES:
                raise ValueError(f"options.{name} takes a Python class, which a file cannot hold; leave it out")
        if self.federated and self.federated.average_every and self.algorithm not in _AVERAGED:
            raise ValueError(
                f"federated.average_every: the mean of learners is taken of weights learnt from fresh data, and "
                f"{self.algorithm} also keeps targets and a replay buffer that belong to its own weights; "
                f"use {', '.join(_AVERAGED)}, or leave average_every out"
            )
        return self

    def disagreement(self, *, replicas: int, steps: int, workers: int, shards: int, iterations: bool) -> str | None:
        """What in the rest of a run does not fit these settings, or None. ``iterations``: the run counts them."""
        if workers or shards > 1:
            return (
                "learner.kind sb3 gathers its own experience; leave rollout.workers at 0 and rollout.shard_replicas out"
            )
        if self.algorithm == "ARS" and not iterations:
            return "learner.algorithm ARS plays whole episodes, so give iterations instead of agent_steps"
        return None
