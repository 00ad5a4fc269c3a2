"""The conformance suite passes what keeps the contracts and names what breaks them: one broken part for each breach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.linear_site import HoldTemperature, TankEncoder, TankPlant, TankTwin, tank_nameplate

from twinloop.envs.conformance import TWIN_CHECKS, check_encoder, check_plant, check_twin
from twinloop.envs.errors import ContractError
from twinloop.envs.plant import Arrays, Telemetry
from twinloop.envs.registry import load_site
from twinloop.envs.task import Task
from twinloop.envs.twin import Readings, Snapshot, Tensors

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"dtype": torch.float64},
    "two groups": {"pump": True},
    "one tank": {"n_tanks": 1},
    "some tanks": {"n_tanks": 4, "n_min": 2},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_twin_that_keeps_the_contract_passes(options: dict[str, Any]) -> None:
    check_twin(lambda n: TankTwin(n, **options), steps=8)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"layout": {"kind": "random", "n_min": 3, "n_max": 5}, "sensors": {"vane_noise_deg": 2.0}},
        {
            "layout": {"kind": "random", "n_min": 2, "n_max": 4},
            "dynamics": {"kind": "dynamic", "outage_rate_per_day": 500.0},
            "inflow": {"wind_speed_mps": (5.0, 14.0), "turbulent": True, "direction_drift_std_deg": 5.0},
            "sensors": {"wind_speed_noise_pu": 0.02, "vane_bias_deg": 2.0, "power_noise_pu": 0.01},
        },
    ],
    ids=["steady", "random layouts", "everything that moves"],
)
def test_the_wind_farm_twin_keeps_the_contract(config: dict[str, Any]) -> None:
    site = load_site("wind_farm")
    model = site.config_model.model_validate(config)
    check_twin(lambda n: site.twin(model, n, "cpu", torch.float32), steps=6, batch_sizes=(2, 7))


def test_an_unknown_check_is_named_with_the_nearest() -> None:
    with pytest.raises(ContractError, match=r"no check 'snapshots'.*did you mean 'snapshot'"):
        check_twin(TankTwin, checks=("snapshots",))


class WrongCount(TankTwin):
    def __init__(self, n_replicas: int) -> None:
        super().__init__(max(n_replicas, 2))


class GlobalNoise(TankTwin):
    """Draws from torch's global generator."""

    def step(self, commands: Tensors) -> Readings:
        self._tank_degc = self._tank_degc + 0.01 * torch.rand_like(self._tank_degc)
        return super().step(commands)


class Remembers(TankTwin):
    """Forgets to switch the heaters off at reset."""

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        heater_kw = self._heater_kw.clone()
        super().reset(seeds, rows)
        self._heater_kw = heater_kw
        return self._read(torch.arange(self.n_replicas) if rows is None else rows)


class LeaksTheBatch(TankTwin):
    """Shares a last digit of heat among replicas."""

    def step(self, commands: Tensors) -> Readings:
        self._tank_degc = self._tank_degc + 1e-5 * (self._tank_degc.mean(dim=0) - self._tank_degc)
        return super().step(commands)


class NoiseByPosition(TankTwin):
    """Noise depends on where in the batch a replica stands."""

    def step(self, commands: Tensors) -> Readings:
        kept = self._seeds
        self._seeds = self._seeds + torch.arange(self.n_replicas)
        super().step(commands)
        self._seeds = kept
        return self._read(torch.arange(self.n_replicas))


class ResetTouchesOthers(TankTwin):
    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        self._room_degc = torch.full_like(self._room_degc, 20.0)
        return super().reset(seeds, rows)


class ResetRereadsOthers(TankTwin):
    """Reads every instrument again, so that the others' readings change under the reader."""

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        super().reset(seeds, rows)
        self._steps = self._steps + 1000
        readings = self._read(torch.arange(self.n_replicas))
        self._steps = self._steps - 1000
        return readings


class ResetSortsRows(TankTwin):
    """Takes rows for sorted, and so gives them each other's seeds."""

    def reset(self, seeds: torch.Tensor, rows: torch.Tensor | None = None) -> Readings:
        return super().reset(seeds, None if rows is None else rows.sort().values)


class SnapshotForgetsHeaters(TankTwin):
    def snapshot(self) -> Snapshot:
        return {key: tensor for key, tensor in super().snapshot().items() if key != "_heater_kw"}

    def restore(self, snapshot: Snapshot) -> None:
        super().restore({"_heater_kw": self._heater_kw, **snapshot})


class SnapshotIsAView(TankTwin):
    def snapshot(self) -> Snapshot:
        return {**super().snapshot(), "_steps": self._steps}

    def step(self, commands: Tensors) -> Readings:
        self._steps += 1
        kept, self._steps = self._steps, self._steps - 1
        readings = super().step(commands)
        self._steps = kept
        return readings


class RestoreKeepsTheSnapshot(SnapshotIsAView):
    def snapshot(self) -> Snapshot:
        return TankTwin.snapshot(self)

    def restore(self, snapshot: Snapshot) -> None:
        super().restore(snapshot)
        self._steps = snapshot["_steps"]


class ParameterForAll(TankTwin):
    def set_parameters(self, values: Tensors) -> None:
        super().set_parameters(values)
        self._loss[:] = self._loss[1]


class ParameterLeaks(TankTwin):
    """Reads back right, but all replicas use replica 1's value."""

    def _losses(self) -> torch.Tensor:
        return self._loss[1:2].expand_as(self._loss) if len(self._loss) > 1 else self._loss

    def step(self, commands: Tensors) -> Readings:
        own, self._loss = self._loss, self._losses()
        readings = super().step(commands)
        self._loss = own
        return readings


class ParameterOutsideSnapshot(TankTwin):
    def restore(self, snapshot: Snapshot) -> None:
        super().restore({**snapshot, "_coupling": self._coupling})


class ParameterSlips(TankTwin):
    def set_parameters(self, values: Tensors) -> None:
        super().set_parameters({name: value for name, value in values.items() if name in self.parameters()})


class ParameterOutOfRange(TankTwin):
    def __init__(self, n_replicas: int) -> None:
        super().__init__(n_replicas)
        self._loss[:] = 7.0


class ParameterUndeclared(TankTwin):
    def parameters(self) -> dict[str, torch.Tensor]:
        return {**super().parameters(), "secret": self._loss}


class NanAtFullPower(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        readings = super().step(commands)
        full = readings.measured["tank"][..., 1] >= 20.0
        readings.measured["tank"][..., 0][full] = torch.nan
        return readings


class NoLimiter(TankTwin):
    """Reports the commanded power whatever the heater can do."""

    def step(self, commands: Tensors) -> Readings:
        readings = super().step(commands)
        readings.measured["tank"][..., 1] = commands["tank"][..., 0]
        return readings


class ThermometerOffScale(TankTwin):
    def _read(self, fresh: torch.Tensor) -> Readings:
        readings = super()._read(fresh)
        readings.measured["tank"][..., 0] -= 60.0
        return readings


class WrongDtype(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        readings = super().step(commands)
        return replace(readings, hidden={"tank": readings.hidden["tank"].double()})


class WrongShape(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        readings = super().step(commands)
        return replace(readings, measured={"tank": readings.measured["tank"][..., :1]})


class ClockStandsStill(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        readings = super().step(commands)
        return replace(readings, time_s=torch.zeros_like(readings.time_s))


class AssetsVanish(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        self._present[:, -1] &= self._steps < 3
        return super().step(commands)


class EmptySlotsHeat(TankTwin):
    """Slots without a tank still conduct heat."""

    def __init__(self, n_replicas: int) -> None:
        super().__init__(n_replicas, 4, n_min=2)

    def step(self, commands: Tensors) -> Readings:
        kept, self._present = self._present, torch.ones_like(self._present)
        super().step(commands)
        self._present = kept
        return self._read(torch.arange(self.n_replicas))


class LimitsInPlace(TankTwin):
    def step(self, commands: Tensors) -> Readings:
        commands["tank"].clamp_(0.0, 5.0)
        return super().step(commands)


class ReusesItsBuffers(TankTwin):
    def _read(self, fresh: torch.Tensor) -> Readings:
        old = self._last
        new = super()._read(fresh)
        if old is not None:
            old.measured["tank"].copy_(new.measured["tank"])
            self._last = new = replace(new, measured={"tank": old.measured["tank"]})
        return new


BROKEN_TWINS: list[tuple[Callable[[int], TankTwin], str, str]] = [
    (WrongCount, "declaration", r"asked for 1 replicas, n_replicas says 2"),
    (WrongDtype, "shapes", r"hidden\['tank'\] after step 1 is torch.float64, expected torch.float32"),
    (WrongShape, "shapes", r"measured\['tank'\] after step 1 is \(1, 3, 1\), expected \(1, 3, 2\)"),
    (ClockStandsStill, "shapes", r"time_s of replica 0 after step 1 is 0.0, not 1 times 10.0"),
    (
        ThermometerOffScale,
        "values",
        r"tank/T\d/temperature_degc of replica \d after .*: -.* degC is outside .*\[0.0, 100.0\]",
    ),
    (NanAtFullPower, "extremes", r"tank/T1/temperature_degc of replica 0 after step 4 with commands maximum: nan"),
    (
        NoLimiter,
        "beyond limits",
        r"tank/T1/heater_kw of replica 0 after step 1 .*: -200.0 kW is outside .*\[0.0, 20.0\]",
    ),
    (AssetsVanish, "present", r"tank/T3/present of replica 0 went from True at reset to False after step 4"),
    (
        EmptySlotsHeat,
        "present",
        r"tank/T\d/temperature_degc of replica \d+ after step .*: with one command to the absent",
    ),
    (LimitsInPlace, "ownership", r"step changed the command tank/T\d/heater_kw of replica 0 .* to 5.0"),
    (ReusesItsBuffers, "ownership", r"readings returned earlier now say"),
    (GlobalNoise, "determinism", r"tank/T1/temperature_degc of replica 0 after step 1: a second new twin says"),
    (Remembers, "determinism", r"tank/T1/heater_kw of replica 0 after reset: the same twin reset again says"),
    (LeaksTheBatch, "batch", r"temperature_degc of replica 0 \(seed 11\) after step \d.*: in a batch of 2 .*, alone "),
    (
        NoiseByPosition,
        "batch",
        r"tank/T1/temperature_degc of replica 1 \(seed 3\) after step 1: in a batch of 2 .*, alone ",
    ),
    (
        ResetTouchesOthers,
        "partial resets",
        r"tank/T1/.*_degc of replica \d \(seed \d+, \d+ steps old\) after \d+ steps",
    ),
    (ResetRereadsOthers, "partial resets", r"tank/T1/temperature_degc of replica \d after rows \[.*\] were reset"),
    (ResetSortsRows, "partial resets", r"tank/T1/temperature_degc of replica \d+ after rows \[.*\] were reset"),
    (
        SnapshotForgetsHeaters,
        "snapshot",
        r"tank/T1/temperature_degc of replica 0 .* calls after the snapshot: the same twin",
    ),
    (SnapshotIsAView, "snapshot", r"snapshot key '_steps' at \[0\]: later .* when taken"),
    (RestoreKeepsTheSnapshot, "snapshot", r"snapshot key '_steps'"),
    (ParameterForAll, "parameters", r"loss_kw_per_k of replica 0 after loss_kw_per_k of replica 1 was set reads"),
    (ParameterLeaks, "parameters", r"temperature_degc of replica 0 after loss_kw_per_k of replica 1 was set: now"),
    (ParameterOutsideSnapshot, "parameters", r"coupling_kw_per_k of replica 1 after restore"),
    (ParameterSlips, "parameters", r"accepts the unknown name 'no_such_parameter'"),
    (ParameterOutOfRange, "parameters", r"loss_kw_per_k of replica 0 is 7.0 kW/K, outside its declared \[0.01, 1.0\]"),
    (ParameterUndeclared, "parameters", r"parameters\(\) gives .*secret"),
]


@pytest.mark.parametrize(("make_twin", "check", "words"), BROKEN_TWINS, ids=lambda v: getattr(v, "__name__", None))
def test_a_broken_twin_is_caught_by_the_check_that_is_made_for_it(
    make_twin: Callable[[int], TankTwin], check: str, words: str
) -> None:
    with pytest.raises(ContractError, match=f"(?s)check '{check}': .*{words}"):
        check_twin(make_twin, checks=(check,))
    with pytest.raises(ContractError):
        check_twin(make_twin)


def test_every_check_of_a_twin_can_fail() -> None:
    assert {check for _, check, _ in BROKEN_TWINS} == set(TWIN_CHECKS)


def test_the_tank_task_is_a_task() -> None:
    assert isinstance(HoldTemperature(), Task)


# Plants


def test_a_plant_that_keeps_the_contract_passes() -> None:
    check_plant(TankPlant)


class ReadsTheFuture(TankPlant):
    def read(self) -> Telemetry:
        telemetry = super().read()
        return replace(telemetry, source_time_s={"tank": telemetry.source_time_s["tank"] + 5.0})


class SourceClockJumpsBack(TankPlant):
    def read(self) -> Telemetry:
        telemetry = super().read()
        return replace(telemetry, source_time_s={"tank": 3.4e9 - 1.0 - telemetry.source_time_s["tank"]})


class SequenceStuck(TankPlant):
    def read(self) -> Telemetry:
        return replace(super().read(), sequence=1)


class ClockStuck(TankPlant):
    def advance(self) -> None:
        kept = self.clock_s
        super().advance()
        self.clock_s = kept


class GoodButNan(TankPlant):
    def read(self) -> Telemetry:
        telemetry = super().read()
        telemetry.values["tank"][1, 0] = np.nan
        return telemetry


class UnknownQuality(TankPlant):
    def read(self) -> Telemetry:
        telemetry = super().read()
        telemetry.quality["tank"][2, 1] = 3
        return telemetry


class ReadsFloat32(TankPlant):
    def read(self) -> Telemetry:
        telemetry = super().read()
        return replace(telemetry, values={"tank": telemetry.values["tank"].astype(np.float32)})


class ReusesItsArrays(TankPlant):
    kept: Telemetry | None = None

    def read(self) -> Telemetry:
        telemetry = super().read()
        if self.kept is not None:
            self.kept.values["tank"][:] = telemetry.values["tank"]
            telemetry = replace(telemetry, values=self.kept.values)
        self.kept = telemetry
        return telemetry


class AcceptsAnything(TankPlant):
    def write(self, commands: Arrays) -> Arrays:
        super().write(commands)
        return {"tank": commands["tank"].copy()}


class AcceptsHalf(TankPlant):
    """Its echo is not what it holds."""

    def write(self, commands: Arrays) -> Arrays:
        return {"tank": 0.5 * super().write(commands)["tank"]}


class AcceptsNan(TankPlant):
    def write(self, commands: Arrays) -> Arrays:
        return super().write({"tank": np.nan_to_num(commands["tank"], nan=20.0)})


class LimitsInPlaceToo(TankPlant):
    def write(self, commands: Arrays) -> Arrays:
        np.clip(commands["tank"], 0.0, 20.0, out=commands["tank"])
        return super().write(commands)


class ClosesOnce(TankPlant):
    def close(self) -> None:
        if not self._open:
            raise RuntimeError("already closed")
        super().close()


BROKEN_PLANTS: list[tuple[Callable[[], TankPlant], str, str]] = [
    (ReadsFloat32, "shapes", r"values\['tank'\] after 0 periods is float32, expected float64"),
    (ReadsTheFuture, "times", r"tank/T1/temperature_degc after 0 periods was taken at .*, after it was received"),
    (SourceClockJumpsBack, "times", r"tank/T1/temperature_degc after 1 periods was taken at .*, the reading before"),
    (SequenceStuck, "sequence", r"numbered 1 and 1"),
    (ClockStuck, "clock", r"it must grow"),
    (GoodButNan, "values", r"tank/T2/temperature_degc after 0 periods is nan degC with quality GOOD"),
    (
        UnknownQuality,
        "quality",
        r"tank/T3/heater_kw after 0 periods has quality 3; there are 0 GOOD, 1 UNCERTAIN, 2 BAD",
    ),
    (ReusesItsArrays, "ownership", r"of an earlier reading changed"),
    (AcceptsAnything, "write", r"tank/T1/heater_kw accepted of commands far below: -200.0 kW is outside"),
    (AcceptsHalf, "write", r"tank/T1/heater_kw: 10.0 was accepted and, written again, came back as 5.0"),
    (AcceptsNan, "NaN", r"tank/T1/heater_kw: NaN was written and 20.0 accepted, 0.0 was in force"),
    (LimitsInPlaceToo, "ownership", r"write changed the command tank/T1/heater_kw"),
    (ClosesOnce, "close", r"closing twice raised RuntimeError"),
]


@pytest.mark.parametrize(("make_plant", "check", "words"), BROKEN_PLANTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_broken_plant_is_caught(make_plant: Callable[[], TankPlant], check: str, words: str) -> None:
    with pytest.raises(ContractError, match=f"(?s)check '{check}': .*{words}"):
        check_plant(make_plant)


def test_a_plant_that_breaks_is_closed_all_the_same() -> None:
    plant = SequenceStuck()
    with pytest.raises(ContractError):
        check_plant(lambda: plant)
    assert not plant._open


# Encoders


def test_an_encoder_that_keeps_the_contract_passes() -> None:
    check_encoder(TankEncoder(), tank_nameplate(4))


class Changed(TankEncoder):
    """An encoder whose features pass through :meth:`change` last."""

    def change(self, features: Any, measured: Any, present: Any) -> Any:
        raise NotImplementedError

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        features, after = super().encode(measured, statics, present, memory, dt_s)
        return self.change(features, measured, present), after


class OtherInTorch(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        return features * 1.001 if isinstance(features, torch.Tensor) else features


class InfiniteAtCorner(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        with np.errstate(divide="ignore"):
            return features + (1.0 / measured[..., :1]) * present[..., None]


class AbsentNotZero(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        return features + 1.0


class AbsentLeaks(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        return features + measured[:, -1:, :1] * present[..., None]


class NormalisesByBatch(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        return (features - features.mean(0)) * present[..., None]


class TooFewFeatures(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        return features[..., :2]


class WritesIntoMeasured(Changed):
    def change(self, features: Any, measured: Any, present: Any) -> Any:
        measured[..., 0] = 0.0
        return features


class KeepsState(TankEncoder):
    """Remembers in itself instead of in the memory."""

    calls = 0

    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        self.calls += 1
        features, after = super().encode(measured, statics, present, memory, dt_s)
        return features * self.calls, after


class SettingsNotJson(TankEncoder):
    def settings(self) -> dict[str, Any]:
        return {"scale": np.float32(1.0)}


class MemoryGrows(TankEncoder):
    def encode(
        self, measured: Any, statics: Any, present: Any, memory: Mapping[str, Any], dt_s: float
    ) -> tuple[Any, Mapping[str, Any]]:
        features, after = super().encode(measured, statics, present, memory, dt_s)
        return features, {**after, "more": after["before"]}


BROKEN_ENCODERS: list[tuple[type[TankEncoder], str, str]] = [
    (OtherInTorch, "numpy and torch", r"tank, slot 0, feature 0, row 0 of call 0: with torch -1.001, with numpy -1.0"),
    (InfiniteAtCorner, "values", r"tank, slot 0, feature 0, row 0 of call 0 is inf"),
    (AbsentNotZero, "absent", r"an empty slot has zero features"),
    (AbsentLeaks, "absent", r"with other readings in the empty slots"),
    (NormalisesByBatch, "rows", r"row 0 alone"),
    (TooFewFeatures, "shapes", r"features of call 0 are \(6, 4, 2\), expected \(6, 4, 4\)"),
    (WritesIntoMeasured, "ownership", r"encode changed the measured that it was given"),
    (KeepsState, "numpy and torch", r"with torch"),
    (SettingsNotJson, "settings", r"can't be JSON"),
    (MemoryGrows, "memory", r"encode returns memory .*more"),
]


@pytest.mark.parametrize(("encoder", "check", "words"), BROKEN_ENCODERS, ids=lambda v: getattr(v, "__name__", None))
def test_a_broken_encoder_is_caught(encoder: type[TankEncoder], check: str, words: str) -> None:
    with pytest.raises(ContractError, match=f"(?s)check '{check}': .*{words}"):
        check_encoder(encoder(), tank_nameplate(4))
