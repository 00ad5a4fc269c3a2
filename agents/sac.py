"""Multi-agent soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905): one update of all groups of a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .sac_group import Draw, SacGroup, squash
from .sac_settings import SacConfiguration

Views = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


@dataclass(frozen=True, eq=False)
class Transitions:
    """Joint steps of one group that were drawn from memory, float32; whatever belongs to an absent asset is zero.

    ``features``, ``next_features`` ``[b, N, F]`` normalised; ``actions`` ``[b, N, K]`` that the twin obeyed;
    ``reward``, ``present`` and ``present_after`` ``[b, N]``, 1 or 0 before and after the step; ``terminated`` ``[b]``,
    1 where nothing follows (0 where an episode was cut: what it ended with is in ``next_features``).
    """

    features: torch.Tensor
    actions: torch.Tensor
    reward: torch.Tensor
    present: torch.Tensor
    next_features: torch.Tensor
    present_after: torch.Tensor
    terminated: torch.Tensor


class SacLearner:
    """All groups of a site; ``sizes[group]``: assets, features and actions an asset."""

    def __init__(
        self,
        sizes: Mapping[str, tuple[int, int, int]],
        settings: SacConfiguration,
        generators: Mapping[str, torch.Generator],
    ) -> None:
        self.settings = settings
        is_alone = sum(n for n, _, _ in sizes.values()) == 1
        self._is_joint = settings.critic == "joint" and not is_alone
        width = sum(n * (f + k) for n, f, k in sizes.values()) if self._is_joint else 0
        self.groups = {name: SacGroup(f, k, n, width, settings, generators[name]) for name, (n, f, k) in sizes.items()}

    def noise(self, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """What an update draws, ``[S, 2 R, K]`` a group: the actions before the step, then those after."""
        return {
            name: torch.randn(g.n_stacks, 2 * batch * g.n_assets // g.n_stacks, g.n_actions, generator=generator)
            for name, g in self.groups.items()
        }

    @torch.no_grad()
    def update(self, batch: Mapping[str, Transitions], noise: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One gradient step of every critic, actor and temperature, then of the targets; returns figures.

        Every group draws its actions before any group learns, so that no result depends on the order of groups.
        """
        own, layers, now, then = {}, {}, {}, {}
        for name, group in self.groups.items():
            own[name] = group.rows(batch[name].features), group.rows(batch[name].next_features)
            outputs = group.actor.forward(torch.cat(own[name], 1))
            n_rows = own[name][0].shape[1]
            layers[name] = [x[:, :n_rows] for x in outputs]
            head, z = outputs[-1], noise[name]
            now[name], then[name] = squash(head[:, :n_rows], z[:, :n_rows]), squash(head[:, n_rows:], z[:, n_rows:])
        views = self._views(batch, now, then)
        figures: dict[str, torch.Tensor] = {}
        for name, group in self.groups.items():
            b, (x, next_x), (before, chosen, after) = batch[name], own[name], views[name]
            share = group.shares(b.present)
            goes_on = b.present_after * (1.0 - b.terminated)[:, None]
            future = group.target_values(next_x, then[name].action, after)
            future = future - group.temperatures(len(b.present)) * then[name].log_prob
            wanted = group.rows(b.reward) + self.settings.gamma * group.rows(goes_on) * future
            critic_loss, value = group.learn_critics(x, group.rows(b.actions), before, wanted, share)
            actor_loss = group.learn_policy(layers[name], now[name], x, chosen, share, b.present)
            group.move_targets()
            entropy = -(now[name].log_prob * share).sum() / group.n_stacks
            figures |= {
                f"{name}/critic_loss": critic_loss,
                f"{name}/actor_loss": actor_loss,
                f"{name}/value": value,
                f"{name}/entropy": entropy,
                f"{name}/temperature": group.log_temperature.exp().mean(),
            }
        return figures

    def _views(
        self, batch: Mapping[str, Transitions], now: Mapping[str, Draw], then: Mapping[str, Draw]
    ) -> dict[str, Views]:
        """What each asset's critics see of the others, a group: as it was, with today's actions, and after the step."""
        if not self._is_joint:
            return dict.fromkeys(self.groups, (None, None, None))
        was, chosen, after = [], [], []
        for name, group in self.groups.items():
            b = batch[name]
            was.append(torch.cat([b.features, b.actions], -1))
            chosen.append(torch.cat([b.features, group.assets(now[name].action) * b.present.unsqueeze(-1)], -1))
            after.append(
                torch.cat([b.next_features, group.assets(then[name].action) * b.present_after.unsqueeze(-1)], -1)
            )
        found: dict[str, Views] = {}
        at = 0
        for name, group in self.groups.items():
            before, today, later = (group.rows(_of_others(slots, at, group.n_assets)) for slots in (was, chosen, after))
            found[name] = before, today, later
            at += group.n_assets
        return found


def _of_others(slots: list[torch.Tensor], first: int, n: int) -> torch.Tensor:
    """``[b, n, W]``: all slots side by side as the assets ``first .. first + n - 1`` see them, their own slot zero.

    ``slots``: ``[b, N, width]`` a group.
    """
    everything = torch.cat([s.flatten(1) for s in slots], 1)
    owner = torch.cat([torch.full((s.shape[1],), s.shape[2]) for s in slots])
    owner = torch.repeat_interleave(torch.arange(len(owner)), owner)
    is_other = owner != torch.arange(first, first + n)[:, None]
    return everything[:, None] * is_other
