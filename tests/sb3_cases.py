"""Every algorithm of SB3 and sb3-contrib, small, with commands that it serves."""

from __future__ import annotations

from typing import Any

from tests.lever_site import Commands, lever_configuration

from twinloop.training.configuration import TrainConfiguration
from twinloop.training.rollout_settings import RolloutConfiguration

ON_POLICY: dict[str, Any] = {"batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8, 8]}}
# 25 joint steps fit in, so that four iterations of eight overwrite what came first
OFF_POLICY: dict[str, Any] = {
    "learning_starts": 20, "batch_size": 16, "buffer_size": 100, "policy_kwargs": {"net_arch": [8, 8]},
}  # fmt: skip
LSTM: dict[str, Any] = {**ON_POLICY, "policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 6, "n_lstm_layers": 2}}

CASES: dict[str, tuple[str, Commands, dict[str, Any]]] = {
    "PPO": ("PPO", "two", {**ON_POLICY, "learning_rate": "lin_1e-3", "clip_range": "lin_0.2"}),
    "PPO levels": ("PPO", "many", ON_POLICY),
    "PPO gSDE": ("PPO", "two", {**ON_POLICY, "use_sde": True, "sde_sample_freq": 3}),
    "A2C": ("A2C", "continuous", {"policy_kwargs": {"net_arch": [8], "activation_fn": "ELU"}}),
    "TRPO": ("TRPO", "two", {"batch_size": 16, "policy_kwargs": {"net_arch": [8, 8], "activation_fn": "SiLU"}}),
    "RecurrentPPO": ("RecurrentPPO", "two", LSTM),
    "RecurrentPPO levels": ("RecurrentPPO", "levels", LSTM),
    "MaskablePPO": ("MaskablePPO", "many", ON_POLICY),
    "SAC": ("SAC", "two", OFF_POLICY),
    "SAC gSDE": (
        "SAC", "two",
        {**OFF_POLICY, "use_sde": True, "sde_sample_freq": 2, "policy_kwargs": {"net_arch": [8], "clip_mean": 0.0}},
    ),
    "SAC n-step": ("SAC", "continuous", {**OFF_POLICY, "n_steps": 3}),
    "SAC saving memory": (
        "SAC", "continuous",
        {
            **OFF_POLICY,
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "TD3": ("TD3", "two", {**OFF_POLICY, "noise_type": "normal", "noise_std": 0.1}),
    "DDPG": ("DDPG", "two", {**OFF_POLICY, "noise_type": "ornstein-uhlenbeck", "noise_std": 0.1}),
    "TQC": ("TQC", "two", {**OFF_POLICY, "policy_kwargs": {"net_arch": [8, 8], "activation_fn": "GELU"}}),
    "CrossQ": ("CrossQ", "two", OFF_POLICY),
    "DQN": ("DQN", "levels", OFF_POLICY),
    "QRDQN": ("QRDQN", "levels", {**OFF_POLICY, "policy_kwargs": {"net_arch": [8], "n_quantiles": 7}}),
    "ARS": ("ARS", "two", {"n_delta": 2, "policy_kwargs": {"net_arch": [8]}}),
    "ARS linear": ("ARS", "levels", {"n_delta": 2}),
}  # fmt: skip


def case_configuration(case: str, **changes: Any) -> TrainConfiguration:
    """The run of a case; its ``iterations`` are 4, of 8 steps of 2 replicas of 2 levers."""
    algorithm, commands, options = CASES[case]
    learner: dict[str, Any] = {"kind": "sb3", "algorithm": algorithm, "options": options}
    if case == "ARS linear":
        learner["policy"] = "LinearPolicy"
    settings: dict[str, Any] = {"encoder": {"name": "lever"}}
    if algorithm == "ARS":  # its iterations are whole episodes
        settings["rollout"] = RolloutConfiguration(replicas=2)
    config: TrainConfiguration = lever_configuration(learner, commands, **{**settings, **changes})
    return config
