"""An ensemble filter around a twin: members step together, parameters walk a little, readings mix them.

Everything that chance decides is a hash of (member, step), so that a filter that is restored, or that goes back for a
late reading, comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .. import noise
from ..errors import ConfigurationError, ContractError, nearest
from ..nameplate import Nameplate
from ..twin import Parameter, Readings, Tensors
from . import ensemble
from .consistency import covered
from .contract import Assimilated, Spread
from .mixable import Anchored, Following, Mixable, present_readings
from .settings import FilterSettings

Tensor = torch.Tensor
_PRIOR_STREAM, _WALK_STREAM, _UPDATE_STREAM = 901, 902, 903
_MANY = 0.25


class EnsembleFilter:
    """Keeps the replicas of ``twin`` where a plant is.

    The twin's own randomness is the filter's process noise; its sensors should have none, since noise of readings is
    in the settings. Raises :class:`ConfigurationError` for settings of signals and parameters that it does not have,
    :class:`ContractError` for a twin whose replicas cannot be mixed.
    """

    def __init__(self, twin: Mixable, settings: FilterSettings) -> None:
        if not isinstance(twin, Mixable):
            raise ContractError(f"{type(twin).__name__} cannot be a live twin: it lacks mix(transform); see Mixable")
        if twin.n_replicas < 3:
            raise ContractError(f"{twin.n_replicas} members make no spread; give 32 or more")
        self.twin, self.settings = twin, settings
        self._layout = _layout(twin.nameplate, settings)
        self._specs = _specs(twin, settings)
        self._step = 0
        self._members = torch.arange(twin.n_replicas, dtype=torch.int64, device=twin.device) + settings.seed * 1_000_003
        self._first = twin.parameters()
        self._measured: dict[str, Tensor] = {}

    def start(self, widening: float = 1.0, observed: Mapping[str, Tensor] | None = None) -> None:
        """Members drawn from the prior: the twin's own episodes, and parameters ``widening`` times as far apart.

        ``observed``, as :meth:`assimilate` takes it: what a twin that can be :class:`~.mixable.Anchored` begins near.
        """
        if observed is not None and isinstance(self.twin, Anchored):
            self.twin.anchor(observed)
        draws = self._normal(_PRIOR_STREAM, max(1, len(self._specs)), step=0)
        for k, spec in enumerate(self._specs):
            prior = self.settings.parameters[spec.name]
            mean = self._first[spec.name] if prior.mean is None else prior.mean
            value = mean + widening * prior.std * draws[:, k]
            self.twin.set_parameters({spec.name: value.clamp(spec.minimum, spec.maximum)})
        self._step = 0
        self._measured = self._of(self.twin.reset(self._members).measured)

    def advance(self, commands: Tensors) -> None:
        """One period under ``commands`` ``[N, A]`` a group, which all members obey."""
        self._step += 1
        self._walk()
        every = {
            name: value.to(self.twin.device, self.twin.dtype).expand(self.twin.n_replicas, *value.shape)
            for name, value in commands.items()
        }
        with torch.no_grad():
            self._measured = self._of(self.twin.step(every).measured)

    def assimilate(self, observed: Mapping[str, Tensor]) -> Assimilated:
        """Mix the members towards what was ``observed``, ``[N, O]`` a group, NaN for what is left out."""
        if isinstance(self.twin, Following):
            self.twin.follow(observed)
        values, seen, variance, names = self._gathered(observed)
        if not names:
            return Assimilated(0.0, 0, torch.zeros(0, dtype=torch.bool), ())
        inside = covered(seen, values, variance)
        far = (values - seen.mean(0)).abs() > self.settings.outlier_sigma * (seen.var(0) + variance).sqrt()
        if far.double().mean() > _MANY:  # then it is not the sensors that are wrong
            far = torch.zeros_like(far)
        kept = ~far
        draws = self._draws(int(kept.sum()))
        update: ensemble.Update = getattr(ensemble, self.settings.method)
        analysis = update(
            seen[:, kept], values[kept], variance[kept], inflation=self.settings.inflation, draws=draws
        )  # fmt: skip
        with torch.no_grad():
            self._measured = self._of(self.twin.mix(analysis.transform).measured)
        outliers = tuple(name for name, out in zip(names, far.tolist(), strict=True) if out)
        return Assimilated(float(analysis.nis), int(kept.sum()), inside, outliers)

    def spread(self) -> Spread:
        """What the members say would be read now. Circular signals have circular means."""
        mean, std, reading = {}, {}, {}
        for group in self.twin.nameplate.groups:
            members = self._measured[group.name]
            turn = torch.tensor([s.circular for s in group.measured], device=members.device)
            low = torch.tensor(group.lower("measured"), device=members.device)
            span = torch.tensor(group.upper("measured"), device=members.device) - low
            members = torch.where(turn, _near(members, members[0], span), members)
            centre, error = members.mean(0), torch.zeros_like(members[0])
            for column, variance in self._layout.get(group.name, {}).items():
                error[:, column] = variance
            mean[group.name] = torch.where(turn, low + torch.remainder(centre - low, span), centre)
            std[group.name] = members.std(0)
            reading[group.name] = (members.var(0) + error).sqrt()
        return Spread(mean, std, reading)

    def readings(self) -> Readings:
        """What the members say now, hidden signals among it."""
        return present_readings(self.twin)

    def parameters(self) -> dict[str, Tensor]:
        """Estimated parameters, each ``[B]``."""
        present = self.twin.parameters()
        return {spec.name: present[spec.name] for spec in self._specs}

    def snapshot(self) -> dict[str, Tensor]:
        """All of it, as tensors; :meth:`restore` is the exact inverse."""
        return {**self.twin.snapshot(), "filter/step": torch.tensor(self._step)}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        own = dict(snapshot)
        self._step = int(own.pop("filter/step"))
        self.twin.restore(own)
        self._measured = self._of(present_readings(self.twin).measured)

    def _of(self, measured: Tensors) -> dict[str, Tensor]:
        return {name: value.detach().to(torch.float64) for name, value in measured.items()}

    def _gathered(self, observed: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Values ``[K]``, members ``[B, K]``, variances ``[K]`` and full names of what is there."""
        values, seen, variances, names = [], [], [], []
        for group in self.twin.nameplate.groups:
            for column, variance in self._layout.get(group.name, {}).items():
                value = observed[group.name][:, column].to(self.twin.device, torch.float64)
                there = ~value.isnan()
                signal = group.measured[column]
                members = self._measured[group.name][:, there, column]
                if signal.circular:
                    span = torch.tensor(signal.maximum - signal.minimum, device=members.device)
                    members = _near(members, value[there], span)
                values.append(value[there])
                seen.append(members)
                variances.append(torch.full_like(value[there], variance))
                present = there.tolist()
                names += [f"{group.name}/{a}/{signal.name}" for a, is_there in zip(group.assets, present, strict=True)
                          if is_there]  # fmt: skip
        return torch.cat(values), torch.cat(seen, dim=1), torch.cat(variances), names

    def _walk(self) -> None:
        """Parameters forget: spread goes back to the prior's in ``memory_s`` (a shrinking kernel, Liu & West 2001)."""
        if not self._specs:
            return
        keep = float(torch.exp(torch.tensor(-self.twin.dt_s / self.settings.memory_s, dtype=torch.float64)))
        draws = self._normal(_WALK_STREAM, len(self._specs), step=self._step)
        present, after = self.twin.parameters(), {}
        for k, spec in enumerate(self._specs):
            value, std = present[spec.name].double(), self.settings.parameters[spec.name].std
            mean = value.mean()
            walked = mean + keep * (value - mean) + (1.0 - keep * keep) ** 0.5 * std * draws[:, k]
            after[spec.name] = walked.clamp(spec.minimum, spec.maximum)
        self.twin.set_parameters(after)

    def _draws(self, n_values: int) -> Tensor | None:
        if self.settings.method == "stochastic":
            return self._normal(_UPDATE_STREAM, n_values, step=self._step)
        if self.settings.method == "square_root":
            return self._normal(_UPDATE_STREAM, self.twin.n_replicas, step=self._step)
        return None

    def _normal(self, stream: int, n: int, *, step: int) -> Tensor:
        return noise.normal(self._members, torch.full_like(self._members, step), stream, n, torch.float64)


def _near(angle: Tensor, origin: Tensor, span: Tensor) -> Tensor:
    """The same angles within half a turn of ``origin``."""
    return origin + torch.remainder(angle - origin + 0.5 * span, span) - 0.5 * span


def _layout(nameplate: Nameplate, settings: FilterSettings) -> dict[str, dict[int, float]]:
    """Variance by group and column of what is assimilated."""
    known = {
        f"{g.name}/{s.name}": (g.name, column) for g in nameplate.groups for column, s in enumerate(g.measured)
    }  # fmt: skip
    found: dict[str, dict[int, float]] = {}
    for name, error in settings.signals.items():
        if name not in known:
            raise ConfigurationError(
                f"signals: {name!r} is not measured at {nameplate.site!r}; there are {', '.join(known)}"
                f"{nearest(name, known)}"
            )
        group, column = known[name]
        found.setdefault(group, {})[column] = error.variance
    return found


def _specs(twin: Mixable, settings: FilterSettings) -> list[Parameter]:
    known = {spec.name: spec for spec in twin.parameter_specs}
    for name in settings.parameters:
        if name not in known:
            raise ConfigurationError(
                f"parameters: {name!r} is none of this twin's: {', '.join(known)}{nearest(name, known)}"
            )
    return [known[name] for name in settings.parameters]
