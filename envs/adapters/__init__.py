"""Sites behind other libraries' interfaces: Gymnasium (one replica, or a vector of them) and PettingZoo.

Stable-Baselines3 has its own adapter in :mod:`twinloop.agents.stable_baselines`. Importing this package registers the
installed sites with Gymnasium, as its convention asks, so that an id works with or without another import::

    gymnasium.make("twinloop.envs.adapters:twinloop/WindFarm-v0")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registration import environment_id, register

if TYPE_CHECKING:
    from .gymnasium_env import TwinEnv
    from .parallel_env import TwinParallelEnv
    from .vector_env import TwinVectorEnv

__all__ = ["TwinEnv", "TwinParallelEnv", "TwinVectorEnv", "environment_id", "register"]

register()

_MODULES = {"TwinEnv": "gymnasium_env", "TwinParallelEnv": "parallel_env", "TwinVectorEnv": "vector_env"}


def __getattr__(name: str) -> Any:
    """Import an adapter when it is asked for: registering ids must not import torch."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
