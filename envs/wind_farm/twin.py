"""The wind-farm twin: a batch of farms in drifting wind, in equilibrium or with travelling wakes.

This is the contract's side: rows, seeds, snapshots, readings; the model is in :mod:`.physics`. Inside, the replica is
the last axis, padded to a multiple of 64 so that no kernel's tail depends on the batch size; outside, it is the
first, as everywhere in twinloop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..errors import ContractError
from ..nameplate import Nameplate
from ..twin import Parameter, Readings, Tensors
from .anchoring import anchored
from .config import RandomLayout, WindFarmConfig
from .farm import farm_nameplate, fixed_layout, turbine_statics
from .mixing import ADVECTION_BOUNDS, mix_parameters, mix_state
from .nameplate import COMMANDED, GROUP
from .physics import WAKE_PARAMETERS, FarmPhysics
from .sensing import measure, reveal
from .travel import slots_needed
from .turbine import Turbine, load_turbine

Tensor = torch.Tensor

_LANES = 64


class WindFarmTwin:
    """``n_replicas`` farms of one configuration; keeps the :class:`~twinloop.envs.twin.Twin` contract.

    Raises LayoutError, ConfigurationError (turbine) and MissingExtraError when it is made.
    """

    def __init__(
        self, config: WindFarmConfig, n_replicas: int, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if n_replicas < 1:
            raise ContractError(f"n_replicas {n_replicas}: a twin has at least one replica")
        turbines = [load_turbine(name) for name in (config.turbine, *config.other_turbines)]
        self._config, self._n_replicas = config, n_replicas
        self._lanes = _padded(n_replicas)
        self._device, self._dtype = torch.device(device), dtype
        self._nameplate = farm_nameplate(config)
        self._physics = FarmPhysics(config, turbines, self._device, dtype, _ring_slots(config, turbines))
        self._statics_of_kind = torch.tensor([turbine_statics(t) for t in turbines], dtype=dtype, device=self._device)
        self._drawing = self._physics
        self._newest = 0
        full = torch.ones(self._lanes, dtype=dtype, device=self._device)
        self._parameters = {name: full * default for name, (default, _, _) in WAKE_PARAMETERS.items()}
        self._parameters["advection_ratio"] = full * config.dynamics.advection_ratio
        seeds = torch.zeros(self._lanes, dtype=torch.int64, device=self._device)
        self._state = self._physics.fresh(seeds, self._parameters, self._newest)
        self._types = self._physics.types(self._state["kind"])

    @property
    def nameplate(self) -> Nameplate:
        return self._nameplate

    @property
    def n_replicas(self) -> int:
        return self._n_replicas

    @property
    def dt_s(self) -> float:
        return self._config.dt_s

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def parameter_specs(self) -> tuple[Parameter, ...]:
        specs = [Parameter(name, "1", low, high, "wake model") for name, (_, low, high) in WAKE_PARAMETERS.items()]
        return (*specs, Parameter("advection_ratio", "1", *ADVECTION_BOUNDS, "speed of wakes over that of the wind"))

    def parameters(self) -> dict[str, Tensor]:
        return {name: value[: self._n_replicas].clone() for name, value in self._parameters.items()}

    def set_parameters(self, values: Tensors) -> None:
        """Set some parameters, each ``[B]`` or a scalar; gradients flow through them."""
        for name, value in values.items():
            if name not in self._parameters:
                raise ContractError(f"parameter {name!r}: unknown; this twin has {', '.join(self._parameters)}")
            self._parameters[name] = self._pad(value.to(self._device, self._dtype).expand(self._n_replicas))

    def reset(self, seeds: Tensor, rows: Tensor | None = None) -> Readings:
        """Draw new episodes from ``seeds`` for ``rows`` (all when None); other rows keep every bit."""
        count = self._n_replicas if rows is None else int(rows.numel())
        if tuple(seeds.shape) != (count,):
            raise ContractError(f"reset: {tuple(seeds.shape)} seeds for {count} rows; give one int64 a row")
        if count:
            target = torch.arange(self._n_replicas) if rows is None else rows
            target = target.to(self._device, torch.int64)
            padded = _repeat_last(seeds.to(self._device, torch.int64), _padded(count))
            parameters = {k: _repeat_last(v[target], _padded(count)) for k, v in self._parameters.items()}
            fresh = self._drawing.fresh(padded, parameters, self._newest)
            state = {}
            for name, value in self._state.items():
                state[name] = value.detach().clone()
                state[name][..., target] = fresh[name][..., :count].detach()
            self._state = state
            self._types = self._physics.types(state["kind"])
        return self._readings()

    def step(self, commands: Tensors) -> Readings:
        """Advance ``dt_s``; ``commands["turbine"]`` is ``[B, N, 2]``: yaw offset (deg), power limit (share of rated).

        Commands beyond the nameplate's range act as its ends, like the equipment's own stops.
        """
        given = commands[GROUP].to(self._device, self._dtype)
        expected = (self._n_replicas, self._nameplate.group(GROUP).n_assets, len(COMMANDED))
        if tuple(given.shape) != expected:
            raise ContractError(f"step: commands['turbine'] is {tuple(given.shape)}, expected {expected} (B, N, A)")
        inner = self._pad(given.permute(2, 1, 0))
        offset, limit = (torch.clamp(inner[k], c.minimum, c.maximum).contiguous() for k, c in enumerate(COMMANDED))
        commanded = self._state | {"offset_deg": offset, "power_limit_pu": limit}
        self._state = self._physics.advance(commanded, self._types, self._parameters, self._newest)
        self._newest = (self._newest + 1) % self._physics.slots
        return self._readings()

    def snapshot(self) -> dict[str, Tensor]:
        kept = {f"state/{k}": v.detach().clone() for k, v in self._state.items()}
        kept |= {f"parameter/{k}": v.detach().clone() for k, v in self._parameters.items()}
        return kept | {"newest": torch.tensor(self._newest)}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        self._newest = int(snapshot["newest"])
        self._state = {k.removeprefix("state/"): v.clone() for k, v in snapshot.items() if k.startswith("state/")}
        parameters = {k: v for k, v in snapshot.items() if k.startswith("parameter/")}
        self._parameters = {k.removeprefix("parameter/"): v.clone() for k, v in parameters.items()}
        self._types = self._physics.types(self._state["kind"])

    def mix(self, transform: Tensor) -> Readings:
        """Apply an analysis ``[B, B]`` to all continuous state and all parameters; see :mod:`.mixing`."""
        given = transform.to(self._device)
        self._state = mix_state(self._state, given)
        self._parameters = mix_parameters(self._parameters, given)
        return self._readings()

    def follow(self, measured: Tensors) -> None:
        """Put turbines of all replicas out of service where ``available_pu`` of ``measured["turbine"]`` says so, until
        it says otherwise; ``[N, O]``, NaN leaves a turbine as it is."""
        told = measured[GROUP][:, self._nameplate.group(GROUP).index("measured", "available_pu")].to(self._device)
        left = self._state["outage_left_s"]
        wanted = torch.where(told < 0.5, math.inf, 0.0).to(left)[:, None]
        self._state["outage_left_s"] = torch.where(told.isnan()[:, None], left, wanted).contiguous()

    def anchor(self, measured: Tensors) -> None:
        """Draw the episodes to come around the wind that turbines report, ``measured["turbine"]`` ``[N, O]``; without a
        vane or an anemometer that says anything, from where the configuration has them. The drift begins at none."""
        inflow = anchored(self._config.inflow, measured[GROUP])
        config = self._config.model_copy(update={"inflow": inflow})
        turbines = self._physics.turbines
        self._drawing = type(self._physics)(config, turbines, self._device, self._dtype, self._physics.slots)

    def _readings(self) -> Readings:
        s, b = self._state, self._n_replicas
        measured = measure(self._config.sensors, s, self._types.rated_kw, self._dtype)
        kind = self._statics_of_kind[s["kind"][:b]]
        position = s["position_m"].permute(2, 1, 0)[:b].to(self._dtype)
        per_turbine = kind[:, None].expand(-1, position.shape[1], -1)
        present = s["present"].T[:b].contiguous()
        return Readings(
            measured={GROUP: self._outer(measured)},
            hidden={GROUP: self._outer(reveal(s, self._dtype))},
            statics={GROUP: torch.cat((position, per_turbine), dim=-1) * present[..., None]},
            present={GROUP: present},
            time_s=s["step"][:b] * self.dt_s,
        )

    def _outer(self, inner: Tensor) -> Tensor:
        """``[C, N, lanes]`` to ``[B, N, C]``."""
        return inner[..., : self._n_replicas].permute(2, 1, 0).contiguous()

    def _pad(self, row: Tensor) -> Tensor:
        return _repeat_last(row, self._lanes)


def _padded(count: int) -> int:
    return math.ceil(count / _LANES) * _LANES


def _repeat_last(row: Tensor, lanes: int) -> Tensor:
    """Lengthen the last axis to ``lanes`` with copies of its last entry."""
    missing = lanes - row.shape[-1]
    return row if not missing else torch.cat((row, row[..., -1:].expand(*row.shape[:-1], missing)), dim=-1)


def _ring_slots(config: WindFarmConfig, turbines: list[Turbine]) -> int:
    """Slots for the longest way across the farm in the slowest wind of the configuration."""
    coordinates = fixed_layout(config)
    if coordinates is not None:
        x, y = coordinates
        extent = math.hypot(max(x) - min(x), max(y) - min(y))
    else:
        layout = config.layout
        assert isinstance(layout, RandomLayout)  # narrows the type; fixed_layout is None for nothing else
        extent = layout.n_max * layout.spacing_max_d * max(t.rotor_diameter_m for t in turbines)
    least = config.inflow.wind_speed_mps[0] - 3.0 * config.inflow.speed_drift_std_mps
    return slots_needed(extent, least, config.dynamics.advection_ratio, config.dt_s)
