"""What a policy of Stable-Baselines3 does without exploration, as the network that an artifact ships."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import torch
from sb3_contrib import ARS, QRDQN, TQC, CrossQ
from sb3_contrib.common.torch_layers import BatchRenorm1d
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import nn

from ..agents.action_layout import ActionLayout
from ..agents.forward import PolicyNetwork, Squash
from ..agents.layers import Activation, Dense, GruWeights, Layer, LstmWeights
from ..envs.errors import ConfigurationError

_ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.LeakyReLU: "leaky_relu",
}


def to_policy_network(model: BaseAlgorithm, layout: ActionLayout) -> PolicyNetwork:
    """The model's ``predict(deterministic=True)``, from features ``[B, N, F]`` to commands ``[B, N, A]``.

    Raises :class:`~twinloop.envs.errors.ConfigurationError` for a network that an artifact can't carry.
    """
    layers, squash = _parts(model)
    n_features = int(np.prod(model.observation_space.shape or ()))
    return PolicyNetwork(
        feature_mean=np.zeros(n_features, np.float32),
        feature_std=np.ones(n_features, np.float32),
        feature_clip=np.inf,
        layers=tuple(layers),
        layout=layout,
        squash=squash,
    )


def stack(networks: Sequence[PolicyNetwork]) -> PolicyNetwork:
    """Networks of one asset each as one network with a stack an asset; they differ in their weights alone."""
    first = networks[0]
    layers = []
    for peers in zip(*(network.layers for network in networks), strict=True):
        arrays = {key: np.concatenate([getattr(peer, key) for peer in peers]) for key in peers[0].shapes()}
        layers.append(_with_arrays(peers[0], arrays))
    return PolicyNetwork(
        first.feature_mean, first.feature_std, first.feature_clip, tuple(layers), first.layout, first.squash
    )


def _with_arrays(layer: Layer, arrays: dict[str, Any]) -> Layer:
    if isinstance(layer, Dense):
        return Dense(**arrays, activation=layer.activation)
    return (GruWeights if isinstance(layer, GruWeights) else LstmWeights)(**arrays, joins_input=layer.joins_input)


def _parts(model: BaseAlgorithm) -> tuple[list[Layer], Squash]:
    """Layers of the acting half, and how its output is bounded."""
    policy: Any = model.policy
    if isinstance(model, OnPolicyAlgorithm):
        recurrent = _lstm(policy.lstm_actor) if hasattr(policy, "lstm_actor") else []
        layers = _dense([*policy.mlp_extractor.policy_net, policy.action_net])
        return [*recurrent, *layers], "tanh" if policy.squash_output else "clip"
    if isinstance(model, SAC | TQC | CrossQ):
        head = policy.actor.mu
        return _dense([*policy.actor.latent_pi, *(head if isinstance(head, nn.Sequential) else [head])]), "tanh"
    if isinstance(model, TD3):  # and DDPG, which is one
        return _dense(policy.actor.mu, bounded=True), "tanh"
    if isinstance(model, ARS):
        return _dense(policy.action_net, bounded=policy.squash_output), "tanh" if policy.squash_output else "clip"
    if isinstance(model, DQN):
        return _dense(policy.q_net.q_net), "clip"
    if isinstance(model, QRDQN):
        return _mean_of_quantiles(_dense(policy.quantile_net.quantile_net), policy.quantile_net.n_quantiles), "clip"
    raise ConfigurationError(f"learner.algorithm: a policy of {type(model).__name__} can't be carried into an artifact")


def _dense(modules: Iterable[nn.Module], *, bounded: bool = False) -> list[Layer]:
    """Dense layers of torch modules in a row; a batch norm goes into the layer after it.

    ``bounded``: the last module is a tanh, which the network applies as its squash.
    """
    given = list(modules)
    if bounded:
        given.pop()
    layers: list[Layer] = []
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    for module in given:
        if isinstance(module, BatchRenorm1d):
            # scale (x - mean) / sqrt(variance + eps) + bias, in its running moments
            mean, variance = cast(torch.Tensor, module.ra_mean), cast(torch.Tensor, module.ra_var)
            scale = module.scale.detach() / (variance + module.eps).sqrt()
            shift = module.bias.detach() - mean * scale
        elif isinstance(module, nn.Linear):
            weight = module.weight.detach()
            bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
            if scale is not None and shift is not None:
                weight, bias = weight * scale, bias + weight @ shift
                scale = shift = None
            layers.append(Dense(_array(weight.T)[None], _array(bias)[None]))
        elif type(module) in _ACTIVATIONS and layers and isinstance(layers[-1], Dense):
            layers[-1] = Dense(layers[-1].weight, layers[-1].bias, _ACTIVATIONS[type(module)])
        elif isinstance(module, nn.Hardtanh):
            raise ConfigurationError(
                "learner.options.use_sde: the mean of this policy is clipped before its tanh, which an artifact can't "
                "carry; add policy_kwargs: {clip_mean: 0.0}"
            )
        elif not isinstance(module, nn.Identity | nn.Flatten):
            raise ConfigurationError(
                f"learner.options.policy_kwargs: a layer {type(module).__name__} can't be carried into an artifact; "
                f"use {', '.join(kind.__name__ for kind in _ACTIVATIONS)}"
            )
    return layers


def _lstm(lstm: nn.LSTM) -> list[Layer]:
    layers: list[Layer] = []
    for k in range(lstm.num_layers):
        # t() transposes a matrix and leaves a bias as it is
        names = (f"weight_ih_l{k}", f"weight_hh_l{k}", f"bias_ih_l{k}", f"bias_hh_l{k}")
        given, kept, given_bias, kept_bias = (_array(getattr(lstm, name).detach().t())[None] for name in names)
        layers.append(LstmWeights(given, kept, given_bias, kept_bias))
    return layers


def _mean_of_quantiles(layers: list[Layer], n_quantiles: int) -> list[Layer]:
    """The mean over quantiles, which is linear, inside the last layer."""
    last = layers[-1]
    if not isinstance(last, Dense):
        raise ConfigurationError("learner.algorithm: a quantile network ends in a linear layer; this one does not")
    n_inputs = last.n_inputs
    weight = last.weight.reshape(1, n_inputs, n_quantiles, -1).mean(2, dtype=np.float64)
    bias = last.bias.reshape(1, n_quantiles, -1).mean(1, dtype=np.float64)
    return [*layers[:-1], Dense(weight.astype(np.float32), bias.astype(np.float32))]


def _array(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ascontiguousarray(tensor.cpu().numpy(), np.float32).copy()
