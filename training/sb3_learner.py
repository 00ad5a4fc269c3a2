"""One algorithm of SB3, driven from outside: a round of collecting, a round of training, and all of its state.

SB3's ``learn`` can't stop between two rounds and carry on with the same schedules, so its two halves are called here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ..agents.action_layout import ActionLayout
from ..agents.forward import PolicyNetwork
from ..agents.stable_baselines import TwinVecEnv
from ..envs.errors import ConfigurationError, NumericalError
from .sb3_export import to_policy_network
from .sb3_options import Recipe
from .sb3_state import ReplayHistory, restore_to, state_of


class Sb3Learner:
    """A model of SB3 on an environment. The caller makes its generators current around every call that draws."""

    def __init__(self, recipe: Recipe, env: TwinVecEnv, layout: ActionLayout, seed: int, n_iterations: int) -> None:
        self.env = env
        self.layout = layout
        self._n_iterations = n_iterations
        arguments = dict(recipe.arguments)
        if recipe.name == "ARS":
            # by default it would count the episodes of one slot alone
            arguments.setdefault("n_eval_episodes", env.num_envs)
        try:
            model: BaseAlgorithm = recipe.algorithm(recipe.policy, env, seed=None, verbose=0, **arguments)
        except (AssertionError, TypeError, ValueError, NotImplementedError) as error:
            raise ConfigurationError(
                f"learner.options: {recipe.name} of Stable-Baselines3 refuses them: {error}"
            ) from error
        model.action_space.seed(seed)
        self.model: Any = model  # each family of algorithms has attributes of its own
        self._is_on_policy = isinstance(model, OnPolicyAlgorithm)
        self._logger = Logger(None, [])
        self.model.set_logger(self._logger)
        self._callback = Silent()
        self._is_begun = False
        self._gathered = 0
        buffer = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None
        self._history = None if buffer is None else ReplayHistory(buffer)
        total = n_iterations * self._steps_an_iteration()
        if isinstance(model, OffPolicyAlgorithm) and total <= model.learning_starts:
            raise ConfigurationError(
                f"learner.options.learning_starts {model.learning_starts}: the whole run gathers {total} steps of "
                "all its slots, so that nothing would be learnt; make the run longer, or start to learn earlier"
            )

    def begin(self) -> None:
        """Reset the environment and get ready, once."""
        if self._is_begun:
            return
        total = self._n_iterations * self._steps_an_iteration()
        self.model._setup_learn(max(1, total), self._callback, reset_num_timesteps=True)
        self._is_begun = True

    def _steps_an_iteration(self) -> int:
        """Of all slots; 0 where an iteration plays episodes of unknown length."""
        if self._is_on_policy:
            return int(self.model.n_steps) * self.env.num_envs
        return 0 if self._history is None else int(self.model.train_freq.frequency) * self.env.num_envs

    def collect(self, iteration: int) -> None:
        """Gather what an iteration learns from; ARS, which does both in one, learns here too."""
        self.begin()
        model = self.model
        self._logger.name_to_value.clear()
        if self._is_on_policy:
            model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
        elif self._history is not None:
            self._history.before_writing(model.train_freq.frequency)
            gathered = model.collect_rollouts(
                model.env,
                train_freq=model.train_freq,
                action_noise=model.action_noise,
                callback=self._callback,
                learning_starts=model.learning_starts,
                replay_buffer=model.replay_buffer,
                log_interval=None,
            )
            self._gathered = gathered.episode_timesteps
        else:
            model._current_progress_remaining = 1.0 - iteration / self._n_iterations
            model._do_one_update(self._callback, None)

    def train(self) -> dict[str, float]:
        """Learn from what was collected, and return SB3's figures; raises NumericalError when weights diverge."""
        model = self.model
        if self._is_on_policy:
            model.train()
        elif self._history is not None and model.num_timesteps > model.learning_starts:
            steps = model.gradient_steps if model.gradient_steps >= 0 else self._gathered
            if steps > 0:
                model.train(batch_size=model.batch_size, gradient_steps=steps)
        for name, tensor in model.policy.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise NumericalError(
                    f"learner {type(model).__name__}: {name} is no longer finite; "
                    "lower learner.options.learning_rate, or scale the reward"
                )
        told = {k.removeprefix("train/"): v for k, v in self._logger.name_to_value.items()}
        return {k: float(v) for k, v in told.items() if _is_figure(k, v)}

    def network(self) -> PolicyNetwork:
        """What acts without exploration, as an artifact ships it."""
        self.model.policy.set_training_mode(False)
        return to_policy_network(self.model, self.layout)

    def weights(self) -> dict[str, torch.Tensor]:
        """The policy's parameters, which is all that leaves a federated site."""
        found = {name: p.detach().clone() for name, p in self.model.policy.named_parameters()}
        if isinstance(getattr(self.model, "weights", None), torch.Tensor):
            found[_ARS_WEIGHTS] = self.model.weights.clone()
        return found

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put others' parameters in; optimisers and counters stay as they are."""
        with torch.no_grad():
            for name, parameter in self.model.policy.named_parameters():
                parameter.copy_(weights[name])
        if _ARS_WEIGHTS in weights:
            self.model.weights = weights[_ARS_WEIGHTS].clone()

    def boundary(self) -> Callable[[], dict[str, Any]]:
        """Hold on to everything that the next round depends on; calling the result makes plain values of it."""
        self.begin()
        held = {"model": state_of(self.model), "environment": self.env.snapshot()}
        replay = None if self._history is None else self._history.hold()
        return lambda: {**held, "replay": None if replay is None else replay()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back, or on, to where a state of :meth:`boundary` was taken."""
        self.begin()
        restore_to(self.model, state["model"])
        self.env.restore(state["environment"])
        if self._history is not None:
            self._history.restore(state["replay"])


_ARS_WEIGHTS = "weights of ARS"


class Silent(BaseCallback):
    """SB3 wants a callback; figures come from the environment, so this one has nothing to do."""

    def _on_step(self) -> bool:
        return True


def _is_figure(name: str, value: Any) -> bool:
    """Whether SB3's own record is a figure of learning: its clocks and counters are kept elsewhere."""
    is_number = isinstance(value, int | float) or getattr(value, "ndim", None) == 0
    return is_number and not name.startswith("time/") and math.isfinite(float(value))
