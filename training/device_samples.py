"""From a device's rollout to a learner's samples, on that device; the arithmetic of :mod:`.samples` for own critics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..agents.minibatches import Samples
from ..agents.networks import ActorCritic
from ..agents.ppo_settings import PpoConfiguration
from .device_batch import DeviceGroupRollout, DeviceRollout

Tensor = torch.Tensor


class DeviceMoments:
    """As :class:`~twinloop.training.normaliser.RunningMoments`, on a device, absent rows left out by their mask."""

    def __init__(self, n_columns: int, device: torch.device) -> None:
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self._mean = torch.zeros(n_columns, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._mean)

    def add(self, rows: Tensor, present: Tensor) -> None:
        """Merge the moments of ``rows`` ``[..., columns]`` where ``present`` ``[...]``."""
        n = present.sum().double()
        absent = ~present[..., None]
        axes = tuple(range(rows.dim() - 1))
        mean = rows.masked_fill(absent, 0.0).sum(axes, dtype=torch.float64) / n.clamp(min=1.0)
        squares = (rows - mean).square().masked_fill(absent, 0.0).sum(axes, dtype=torch.float64)
        total = self.count + n
        shift, share = mean - self._mean, n / total.clamp(min=1.0)
        self._mean = self._mean + shift * share
        self._squares = self._squares + squares + shift.square() * (self.count * share)
        self.count = total

    def standard(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation in float32; a column that never varied, or was never seen, is left in its scale."""
        deviation = torch.sqrt(self._squares / self.count.clamp(min=1.0))
        deviation = torch.where(deviation < 1e-6, 1.0, deviation)
        return self._mean.float(), deviation.float()

    def state(self) -> dict[str, Any]:
        return {"count": self.count.cpu(), "mean": self._mean.cpu().clone(), "squares": self._squares.cpu().clone()}

    def restore(self, state: Mapping[str, Any]) -> None:
        device = self.count.device
        self.count, self._mean, self._squares = (state[k].clone().to(device) for k in ("count", "mean", "squares"))


def device_rewards(batch: DeviceRollout, settings: PpoConfiguration) -> dict[str, Tensor]:
    """As :func:`twinloop.training.samples.rewards`: zero where absent, scaled, the team's mean if so asked."""
    groups = batch.groups
    own = {n: (g.reward * settings.reward_scale).masked_fill(~g.present, 0.0) for n, g in groups.items()}
    if not settings.team_reward:
        return own
    count = torch.stack([g.present.sum(-1) for g in groups.values()]).sum(0)
    team = torch.stack([r.sum(-1) for r in own.values()]).sum(0) / count.clamp(min=1)
    return {n: team[..., None].expand_as(r).masked_fill(~groups[n].present, 0.0) for n, r in own.items()}


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, ended: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """As :func:`twinloop.agents.advantages.generalised_advantages`, in torch."""
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    carry = torch.full_like(delta, gamma * lam).masked_fill(ended, 0.0)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        torch.addcmul(delta[t], carry[t], running, out=advantage[t])
        running = advantage[t]
    return advantage, advantage + value


@torch.no_grad()
def device_samples(
    group: DeviceGroupRollout,
    batch: DeviceRollout,
    reward: Tensor,
    network: ActorCritic,
    standard: tuple[Tensor, Tensor],
    settings: PpoConfiguration,
    all_present: bool,
) -> tuple[Samples, Tensor]:
    """The samples of one group, and the share of the returns' variance that its critic explains, a scalar tensor."""
    n_stacks, n_assets = network.n_stacks, group.present.shape[-1]

    def rows(x: Tensor) -> Tensor:
        """``[moments, N, ...]`` as ``[S, R, ...]``."""
        if n_stacks == 1:
            return x.flatten(0, 1)[None]
        return x.transpose(0, 1).contiguous()

    def normalised(x: Tensor, present: Tensor) -> Tensor:
        z = ((x - standard[0]) / standard[1]).clamp(-settings.feature_clip, settings.feature_clip)
        return rows(z.masked_fill(~present[..., None], 0.0))

    def values(x: Tensor, n_moments: int) -> Tensor:
        """``[moments, N]`` of normalised rows."""
        found = network.values(x[0] if n_stacks == 1 else x)
        return found.view(n_moments, n_assets) if n_stacks == 1 else found.t()

    shape = group.present.shape
    n_moments = shape[0] * shape[1]
    done = batch.terminated | batch.truncated
    present = group.present.flatten(0, 1)
    features = normalised(group.features.flatten(0, 1), present)
    value = values(features, n_moments).reshape(shape).masked_fill(~group.present, 0.0)
    last = normalised(group.last_features, group.present_after[-1] & ~done[-1][:, None])
    next_value = torch.cat([value[1:], values(last, shape[1])[None]])
    if len(group.final_features):
        t, b = batch.final_index.unbind(1)
        final = normalised(group.final_features, group.present_after[t, b])
        next_value[t, b] = values(final, len(t))
    advantage, returns = generalised_advantages(
        reward,
        value,
        next_value,
        batch.terminated[..., None] | ~group.present_after,
        done[..., None] | ~group.present_after,
        settings.gamma,
        settings.gae_lambda,
    )

    def kept(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        absent = ~present if flat.dim() == 2 else ~present[..., None]
        return rows(flat if all_present else flat.masked_fill(absent, 0))

    samples = Samples(
        features=features,
        actions=kept(group.actions),
        log_prob=kept(group.log_prob),
        advantages=kept(advantage),
        returns=kept(returns),
        present=None if all_present else rows(present),
        legal=None if group.legal is None else rows((group.legal | ~group.present[..., None]).flatten(0, 1)),
    )
    return samples, _explained(returns, value, group.present)


def _explained(returns: Tensor, value: Tensor, present: Tensor) -> Tensor:
    def variance(x: Tensor) -> Tensor:
        n = present.sum().clamp(min=1)
        x = x.double()
        mean = x.masked_fill(~present, 0.0).sum() / n
        return (x - mean).square().masked_fill(~present, 0.0).sum() / n

    spread = variance(returns)
    return torch.where(spread > 0, 1.0 - variance(returns - value) / spread.clamp(min=1e-300), 0.0)
