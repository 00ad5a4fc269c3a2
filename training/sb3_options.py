"""From the words of a configuration to what Stable-Baselines3 takes, or a complaint that says which words it knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..agents.action_layout import ActionLayout
from ..agents.sb3_settings import Sb3Configuration
from ..envs.errors import ConfigurationError, MissingExtraError, nearest
from .configuration import TrainConfiguration

try:
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.utils import LinearSchedule
except ImportError as error:
    raise MissingExtraError("stable-baselines3 and sb3-contrib", "sb3", "learner kind sb3") from error

CONTINUOUS, LEVELS, MANY_LEVELS = "continuous commands", "one command with levels", "several commands with levels"
_EVERYTHING = (CONTINUOUS, LEVELS, MANY_LEVELS)
SERVES: Mapping[str, tuple[str, ...]] = {
    "PPO": _EVERYTHING,
    "A2C": _EVERYTHING,
    "TRPO": _EVERYTHING,
    "RecurrentPPO": _EVERYTHING,
    "MaskablePPO": (LEVELS, MANY_LEVELS),
    "ARS": (CONTINUOUS, LEVELS),
    "SAC": (CONTINUOUS,),
    "TD3": (CONTINUOUS,),
    "DDPG": (CONTINUOUS,),
    "TQC": (CONTINUOUS,),
    "CrossQ": (CONTINUOUS,),
    "DQN": (LEVELS,),
    "QRDQN": (LEVELS,),
}
"""Algorithms whose policies an artifact can carry, and the commands that each of them can give."""

POLICIES = ("MlpPolicy", "MlpLstmPolicy", "LinearPolicy")
ACTIVATIONS = ("Tanh", "ReLU", "ELU", "GELU", "SiLU", "LeakyReLU")
OPTIMIZERS = ("Adam", "AdamW", "RMSprop", "SGD")
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "delta_std")
_NOISES: Mapping[str, type[ActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


@dataclass(frozen=True)
class Recipe:
    """A learner of one group as SB3 makes it: ``algorithm(policy, env, **arguments)``."""

    algorithm: type[BaseAlgorithm]
    policy: str
    arguments: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.algorithm.__name__

    @property
    def is_recurrent(self) -> bool:
        return self.policy == "MlpLstmPolicy"


def recipe(config: TrainConfiguration, settings: Sb3Configuration, group: str, layout: ActionLayout) -> Recipe:
    """What SB3 shall make for a group; raises :class:`ConfigurationError` for whatever it or an artifact can't do."""
    algorithm = _algorithm(settings.algorithm)
    _check_commands(settings.algorithm, group, layout)
    policy = _policy(algorithm, settings.policy)
    known = _names(algorithm.__init__) - {"policy", "env", "seed", "verbose", "tensorboard_log", "stats_window_size"}
    if "action_noise" in known:
        known = known - {"action_noise"} | {"noise_type", "noise_std"}
    is_on_policy = issubclass(algorithm, OnPolicyAlgorithm)
    ours = {"train_freq", "_init_setup_model", "rollout_buffer_class", "replay_buffer_class"}
    known -= ours | ({"n_steps"} if is_on_policy else set())
    arguments = dict(settings.options)
    if is_on_policy and "n_steps" in arguments:
        raise ConfigurationError(
            "learner.options.n_steps: is decided elsewhere; set rollout.steps, the steps of every slot an iteration"
        )
    _check_names("learner.options", arguments, known, settings.algorithm)
    _check_kinds(algorithm, arguments)
    arguments.setdefault("device", "cpu")
    _check_device(str(arguments["device"]))
    arguments["policy_kwargs"] = _policy_kwargs(algorithm, policy, arguments.get("policy_kwargs", {}))
    for name in _SCHEDULES:
        if isinstance(arguments.get(name), str):
            arguments[name] = _schedule(name, arguments[name])
    noise = _noise(arguments, len(layout.continuous))
    if noise is not None:
        arguments["action_noise"] = noise
    steps = config.rollout.steps
    if is_on_policy:
        arguments["n_steps"] = steps
    elif settings.algorithm != "ARS":
        arguments["train_freq"] = (steps, "step")
        arguments.setdefault("gradient_steps", _gradient_steps(algorithm, steps))
    elif steps != type(config.rollout).model_fields["steps"].default:
        # not model_fields_set: the configuration in a run's folder sets every field
        raise ConfigurationError(
            "rollout.steps: ARS plays whole episodes of the task, however long they are; leave rollout.steps out"
        )
    return Recipe(algorithm, policy, arguments)


def algorithms() -> dict[str, type[BaseAlgorithm]]:
    """Algorithms of the installed stable_baselines3 and sb3_contrib by name."""
    found = {name: getattr(package, name) for package in (stable_baselines3, sb3_contrib) for name in package.__all__}
    return {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, BaseAlgorithm)}


def _algorithm(name: str) -> type[BaseAlgorithm]:
    known = algorithms()
    if name not in known:
        raise ConfigurationError(
            f"learner.algorithm: no algorithm {name!r} in stable_baselines3 or sb3_contrib; there are "
            f"{', '.join(sorted(known))}{nearest(name, known)}"
        )
    if name not in SERVES:
        raise ConfigurationError(
            f"learner.algorithm: twinloop does not know how to carry a policy of {name} into an artifact; "
            f"it can for {', '.join(SERVES)}"
        )
    return known[name]


def _check_commands(name: str, group: str, layout: ActionLayout) -> None:
    if layout.continuous and layout.discrete:
        raise ConfigurationError(
            f"learner.controlled.{group}: holds continuous commands and commands with levels, and no algorithm of SB3 "
            "gives both; name one kind there, or use learner.kind ppo, which gives both"
        )
    kind = CONTINUOUS if layout.continuous else LEVELS if len(layout.discrete) == 1 else MANY_LEVELS
    if kind not in SERVES[name]:
        able = [n for n, kinds in SERVES.items() if kind in kinds]
        raise ConfigurationError(
            f"learner.algorithm: {name} gives {' or '.join(SERVES[name])}, and group {group!r} has {kind}; "
            f"these can: {', '.join(able)}"
        )


def _policy(algorithm: type[BaseAlgorithm], asked: str | None) -> str:
    able = [name for name in POLICIES if name in algorithm.policy_aliases]
    if asked is None:
        return able[0]
    if asked not in able:
        raise ConfigurationError(
            f"learner.policy: {algorithm.__name__} has no {asked!r} that an artifact can carry (features are flat "
            f"vectors here, not images or dictionaries); use {' or '.join(able)}{nearest(asked, able)}"
        )
    return asked


def _policy_kwargs(algorithm: type[BaseAlgorithm], policy: str, given: object) -> dict[str, Any]:
    where = "learner.options.policy_kwargs"
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where}: must be a mapping such as {{net_arch: [64, 64]}}, not {given!r}")
    made = {**given}
    known = _names(algorithm.policy_aliases[policy].__init__) - {"observation_space", "action_space", "lr_schedule"}
    known -= {
        n for n in known if n.startswith("features_extractor") or n in ("normalize_images", "use_sde", "lstm_kwargs")
    }
    _check_names(where, made, known, policy)
    for name, module, able in (("activation_fn", torch.nn, ACTIVATIONS), ("optimizer_class", torch.optim, OPTIMIZERS)):
        if name in made:
            word = str(made[name]).removeprefix("nn.")
            if word not in able:
                raise ConfigurationError(
                    f"{where}.{name}: {made[name]!r} is not one of {', '.join(able)}{nearest(word, able)}"
                )
            made[name] = getattr(module, word)
    return made


def _schedule(name: str, word: str) -> Callable[[float], float]:
    try:
        kind, start = word.split("_", 1)
        if kind != "lin":
            raise ValueError
        return LinearSchedule(float(start), 0.0, 1.0)
    except ValueError:
        raise ConfigurationError(
            f"learner.options.{name}: {word!r} is neither a number nor a schedule such as lin_3e-4, which falls to 0"
        ) from None


def _check_kinds(algorithm: type[BaseAlgorithm], given: Mapping[str, Any]) -> None:
    """Raise for a value of a kind that the algorithm doesn't take: SB3 would stumble over it in mid-run."""
    parameters = inspect.signature(algorithm.__init__).parameters
    for name, value in given.items():
        if name not in parameters or name == "policy_kwargs" or (name in _SCHEDULES and isinstance(value, str)):
            continue  # unknown names, and these, have checks of their own
        hint = parameters[name].annotation
        try:
            TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=True)
        except ValidationError:
            raise ConfigurationError(
                f"learner.options.{name}: {value!r}; {algorithm.__name__} takes {_kind_of(hint)} there"
            ) from None


def _kind_of(hint: Any) -> str:
    """What a file can give for an annotation, in words."""
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    members = [get_origin(member) or member for member in get_args(hint) or (hint,)]
    told = [words[member] for member in members if member in words]
    return " or ".join([*told, *(["null"] if type(None) in members else [])]) or str(hint)


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError(
            f"learner.options.device: {device!r}, but torch finds no CUDA GPU here; use cpu, or a torch built for CUDA"
        )


def _noise(arguments: dict[str, Any], n_actions: int) -> ActionNoise | None:
    kind, std = arguments.pop("noise_type", None), arguments.pop("noise_std", None)
    if kind is None and std is None:
        return None
    if kind not in _NOISES or not isinstance(std, int | float) or not std > 0:
        raise ConfigurationError(
            f"learner.options: noise_type {kind!r} with noise_std {std!r}; give both, the type as one of "
            f"{', '.join(_NOISES)}, the deviation as a positive number in actions of [-1, 1]"
        )
    noise: ActionNoise = _NOISES[kind](np.zeros(n_actions), np.full(n_actions, float(std)))  # type: ignore[call-arg]  # both take mean and sigma
    return noise


def _gradient_steps(algorithm: type[BaseAlgorithm], steps: int) -> int:
    """As many as the algorithm would have taken in ``steps`` with its own ``train_freq`` and ``gradient_steps``."""
    defaults = inspect.signature(algorithm.__init__).parameters
    frequency, gradient = (defaults[name].default for name in ("train_freq", "gradient_steps"))
    if isinstance(frequency, tuple):
        frequency = frequency[0]
    return -1 if gradient < 0 else max(1, round(steps * gradient / frequency))


def _names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def _check_names(where: str, given: Iterable[str], known: set[str], of: str) -> None:
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"{where}: {of} takes no {name!r} here; it takes {', '.join(sorted(known))}{nearest(name, known)}"
            )
