"""The live twin: telemetry as plants send it, the gate, the drift alarm, recalibration, and its state on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from twinloop.agents.controllers.reference import RandomPolicy
from twinloop.deploy.journal import Journal
from twinloop.deploy.live_stretch import stretch_of
from twinloop.deploy.live_twin import LiveTwin, LiveTwinSettings, Span
from twinloop.deploy.runtime import Runtime, RuntimeSettings
from twinloop.deploy.shield import Shield
from twinloop.envs.constraint import declare
from twinloop.envs.errors import ContractError
from twinloop.envs.estimation.settings import Prior, SignalError
from twinloop.envs.plant import Arrays, Quality, Telemetry
from twinloop.training.benchmarks.live_twin_scene import CASES
from twinloop.training.benchmarks.live_twin_wind import track
from twinloop.training.benchmarks.lorenz96_twin import DT_S, GROUP, Lorenz96Twin

Floats = NDArray[np.float64]
N = 8
STILL = {GROUP: np.zeros((N, 1))}


class Ring:
    """The ring as a plant: one replica, read with noise of variance one."""

    def __init__(self, forcing: float = 8.0) -> None:
        self._twin = Lorenz96Twin(1, N)
        self.nameplate = self._twin.nameplate
        self._twin.set_parameters({"forcing": torch.tensor(forcing)})
        self._twin.reset(torch.tensor([4711]))
        self._rng = np.random.default_rng(7)
        self.period = 0
        self._commands: Arrays = STILL
        self.true = np.zeros(N)

    @property
    def clock_s(self) -> float:
        return 1e6 + DT_S * self.period

    def force(self, forcing: float) -> None:
        self._twin.set_parameters({"forcing": torch.tensor(forcing)})

    def read(self) -> Telemetry:
        return reading(self.clock_s, self.true + self._rng.standard_normal(N), self.period + 1)

    def write(self, commands: Arrays) -> Arrays:
        self._commands = {GROUP: np.round(commands[GROUP], 2)}
        return self._commands

    def advance(self) -> None:
        self.period += 1
        push = torch.from_numpy(self._commands[GROUP])[None]
        self.true = self._twin.step({GROUP: push}).measured[GROUP][0, :, 0].numpy()

    def close(self) -> None:
        """Nothing is open."""

    def spans(self, n: int) -> list[Span]:
        found = []
        for _ in range(n):
            self.advance()
            found.append(Span(self.clock_s, STILL, self.read()))
        return found


def reading(time_s: float, row: Floats, sequence: int = 1, **changes: Any) -> Telemetry:
    told = {"values": row[:, None], "source_time_s": np.full((N, 1), time_s), "quality": np.zeros((N, 1), np.int8)}
    told |= changes
    return Telemetry(
        {GROUP: told["values"]}, {GROUP: told["source_time_s"]}, {GROUP: told["quality"]}, time_s, sequence
    )


def live(plant: Ring, n_members: int = 20, **changes: Any) -> LiveTwin:
    settings = {"signals": {"ring/value": SignalError(noise=1.0)}, "inflation": 1.02, "window": 20, **changes}
    twin = LiveTwin(Lorenz96Twin(n_members, N), LiveTwinSettings(**settings))
    twin.start(plant.clock_s)
    return twin


def follow(twin: LiveTwin, spans: list[Span]) -> None:
    for span in spans:
        twin.advance(span.accepted, span.time_s)
        twin.assimilate(span.telemetry)


def same(a: LiveTwin, b: LiveTwin) -> bool:
    first, second = a.snapshot(), b.snapshot()
    return first.keys() == second.keys() and all(np.array_equal(first[k], second[k], equal_nan=True)
                                                 if first[k].dtype.kind == "f" else np.array_equal(first[k], second[k])
                                                 for k in first)  # fmt: skip


def test_it_finds_the_plant_and_then_opens_its_gate() -> None:
    plant = Ring()
    twin = live(plant, parameters={"forcing": Prior(std=1.0, mean=9.0)}, memory_s=1e8)
    assert "only 0 of 20 periods" in twin.verdict().why
    follow(twin, plant.spans(150))
    assert twin.verdict().open, twin.verdict().why
    assert not twin.verdict().why
    assert not twin.verdict().alarm
    assert np.sqrt(np.mean((twin.prediction.values[GROUP][:, 0] - plant.true) ** 2)) < 0.5  # noise is 1
    mean, std = twin.parameters()["forcing"]
    assert abs(mean - 8.0) < 4.0 * std
    assert std < 0.5


def test_predictions_come_in_the_shape_of_a_reading_with_their_interval() -> None:
    plant = Ring()
    twin = live(plant)
    spans = plant.spans(120)
    inside = []
    for span in spans:
        told = twin.advance(span.accepted, span.time_s)
        assert told.time_s == span.time_s
        assert span.telemetry is not None
        read = span.telemetry.values[GROUP]
        inside.append((told.low[GROUP] <= read) & (read <= told.high[GROUP]))
        twin.assimilate(span.telemetry)
    assert told.values[GROUP].shape == (N, 1)
    assert 0.90 < np.mean(inside[40:]) < 0.99


def test_what_comes_late_leads_to_the_same_bits_as_if_it_had_come_in_time() -> None:
    plant = Ring()
    in_time, late, lost = live(plant), live(plant), live(plant)
    spans = plant.spans(12)
    follow(in_time, spans)
    for k, span in enumerate(spans):
        for twin in (late, lost):
            twin.advance(span.accepted, span.time_s)
        if k in (5, 6):
            continue  # held up in the network, both of them
        if k == 7:
            assert late.assimilate(spans[6].telemetry).late == N
            assert late.assimilate(spans[5].telemetry).late == N
        for twin in (late, lost):
            assert twin.assimilate(span.telemetry).used == N
    assert same(in_time, late)
    assert not same(in_time, lost)


def test_a_value_older_than_the_window_from_the_future_or_seen_before_is_refused() -> None:
    plant = Ring()
    twin = live(plant)
    spans = plant.spans(6)
    follow(twin, spans)
    kept = twin.snapshot()
    old, newest = spans[2].telemetry, spans[5].telemetry
    assert old is not None
    assert newest is not None
    assert twin.assimilate(old).refused == N
    assert twin.assimilate(reading(plant.clock_s + DT_S, plant.true)).refused == N
    assert twin.assimilate(newest).used == 0
    assert all(np.array_equal(kept[name], value) for name, value in twin.snapshot().items() if "observed" not in name)


@pytest.mark.parametrize(
    "fault",
    [
        {"quality": np.full((N, 1), Quality.BAD, np.int8)},
        {"quality": np.full((N, 1), Quality.UNCERTAIN, np.int8)},
        {"values": np.full((N, 1), np.nan)},
        {"values": np.full((N, 1), 1e6)},
        {"values": np.zeros((N, 2))},
        {"source_time_s": np.full((N, 1), np.inf)},
    ],
    ids=["bad", "uncertain", "nan", "range", "shape", "time"],
)
def test_bad_values_are_as_if_they_had_not_come(fault: dict[str, Any]) -> None:
    plant = Ring()
    with_fault, without = live(plant), live(plant)
    for span in plant.spans(3):
        for twin in (with_fault, without):
            twin.advance(span.accepted, span.time_s)
        assert with_fault.assimilate(reading(span.time_s, plant.true, **fault)).refused == N
        without.assimilate(None)
    assert same(with_fault, without)


def test_a_reading_in_two_parts_is_one_reading() -> None:
    plant = Ring()
    whole, parts = live(plant), live(plant)
    trusted = np.arange(N) < 3
    for span in plant.spans(4):
        whole.advance(span.accepted, span.time_s)
        whole.assimilate(span.telemetry)
        parts.advance(span.accepted, span.time_s)
        assert parts.assimilate(span.telemetry, {GROUP: trusted}).used == 3
        assert parts.assimilate(span.telemetry).used == N - 3
    assert same(whole, parts)


def test_a_clock_that_drifts_against_the_period_loses_no_step() -> None:
    plant = Ring()
    twin = live(plant)
    start_s = plant.clock_s
    for k in range(1, 101):
        now_s = start_s + 1.02 * k * DT_S
        twin.advance(STILL, now_s)
        assert twin.assimilate(reading(now_s, np.zeros(N))).refused == 0
    assert abs(twin.time_s - now_s) <= 0.5 * DT_S


def test_a_gap_is_stepped_through_and_too_long_a_one_refused() -> None:
    plant = Ring()
    a, b = live(plant), live(plant)
    a.advance(STILL, plant.clock_s + 3 * DT_S)
    for k in range(1, 4):
        b.advance(STILL, plant.clock_s + k * DT_S)
    assert same(a, b)
    with pytest.raises(ContractError, match="start anew"):
        a.advance(STILL, plant.clock_s + 1e4 * DT_S)


def test_a_forecast_is_what_comes_and_leaves_the_twin_where_it_is() -> None:
    plant = Ring()
    twin = live(plant)
    follow(twin, plant.spans(5))
    kept = twin.snapshot()
    told = twin.forecast([STILL] * 3)
    assert all(np.array_equal(kept[name], value, equal_nan=value.dtype.kind == "f")
               for name, value in twin.snapshot().items())  # fmt: skip
    for expected in told:
        came = twin.advance(STILL, expected.time_s)
        assert np.array_equal(came.values[GROUP], expected.values[GROUP])


def test_its_state_goes_to_disk_and_back_bit_for_bit(tmp_path: Path) -> None:
    plant = Ring()
    first = live(plant, parameters={"forcing": Prior(std=0.5)}, method="stochastic")
    follow(first, plant.spans(10))
    first.save(tmp_path / "twin.npz")
    second = live(plant, parameters={"forcing": Prior(std=0.5)}, method="stochastic")
    second.load(tmp_path / "twin.npz")
    assert same(first, second)
    spans = plant.spans(4)
    for twin in (first, second):
        for k, span in enumerate(spans):
            twin.advance(span.accepted, span.time_s)
            twin.assimilate(spans[k - 1].telemetry if k else None)
    assert same(first, second)
    other = live(plant)
    with pytest.raises(ContractError, match="settings"):
        other.load(tmp_path / "twin.npz")
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(ContractError, match="no state"):
        other.load(tmp_path / "no.npz")


def test_silence_closes_the_gate_and_says_so() -> None:
    plant = Ring()
    twin = live(plant)
    follow(twin, plant.spans(60))
    assert twin.verdict().open
    for _ in range(6):
        plant.advance()
        twin.advance(STILL, plant.clock_s)
        twin.assimilate(None)
    assert not twin.verdict().open
    assert "no usable reading for 6 periods" in twin.verdict().why


def test_drift_raises_an_alarm_and_recalibration_finds_the_new_plant() -> None:
    plant = Ring()
    twin = live(plant, parameters={"forcing": Prior(std=0.5)}, memory_s=1e12, inflation=1.0, alarm_periods=20)
    follow(twin, plant.spans(300))
    assert twin.verdict().open
    plant.force(11.0)
    spans = plant.spans(200)
    alarmed = 0
    for span in spans:
        follow(twin, [span])
        alarmed += bool(twin.verdict().alarm)
    assert alarmed > 20
    assert "drift alarm" in twin.verdict().why
    found = twin.recalibrate(spans, widening=3.0)
    assert found.kept
    assert twin.verdict().open
    assert not twin.verdict().alarm
    mean, std = found.after["forcing"]
    assert abs(mean - 11.0) < abs(found.before["forcing"][0] - 11.0)
    assert abs(mean - 11.0) < 4.0 * std
    assert twin.time_s == spans[-1].time_s


def test_a_forecast_that_is_too_wide_closes_the_gate_and_is_no_drift() -> None:
    plant = Ring()
    twin = live(plant, signals={"ring/value": SignalError(noise=3.0)}, alarm_periods=5)  # the noise is 1
    follow(twin, plant.spans(60))
    verdict = twin.verdict()
    assert "NIS 0." in verdict.why
    assert "coverage 1 outside" in verdict.why
    assert not verdict.open
    assert not verdict.alarm


def test_a_recalibration_that_ends_out_of_band_changes_nothing() -> None:
    plant = Ring()
    twin = live(plant)
    follow(twin, plant.spans(40))
    kept = twin.snapshot()
    nonsense = [Span(s.time_s, STILL, reading(s.time_s, np.full(N, 30.0 * (-1) ** k)))
                for k, s in enumerate(plant.spans(40))]  # fmt: skip
    found = twin.recalibrate(nonsense)
    assert not found.kept
    assert "no proposal may be made" in found.verdict.why
    assert all(np.array_equal(kept[name], value, equal_nan=value.dtype.kind == "f")
               for name, value in twin.snapshot().items())  # fmt: skip
    with pytest.raises(ContractError, match="window of 20"):
        twin.recalibrate(nonsense[:20])


def test_a_journal_gives_the_stretch_that_was_run(tmp_path: Path) -> None:
    plant = Ring()
    journal = Journal(tmp_path / "journal.sqlite")
    seen: list[tuple[Arrays, Telemetry | None]] = []
    settings = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=0)
    runtime = Runtime(plant, RandomPolicy(plant.nameplate), Shield(declare(plant.nameplate, ())), journal, settings)
    runtime.run(30, lambda p: seen.append((p.accepted or {}, p.telemetry)))
    journal.close()
    stretch = stretch_of(tmp_path / "journal.sqlite", plant.nameplate)
    assert len(stretch) == 30
    for k, span in enumerate(stretch[1:], start=1):
        # what was accepted in one period is what led to the next reading
        np.testing.assert_array_equal(span.accepted[GROUP], seen[k - 1][0][GROUP])
        told = seen[k][1]
        assert told is not None
        assert span.telemetry is not None
        np.testing.assert_array_equal(span.telemetry.values[GROUP], told.values[GROUP])
    assert len(stretch_of(tmp_path / "journal.sqlite", plant.nameplate, most_periods=12)) == 12
    twin = live(plant)
    assert twin.recalibrate(stretch).verdict.n == 20


def test_commands_that_are_none_are_refused() -> None:
    plant = Ring()
    twin = live(plant)
    for wrong in ({}, {GROUP: np.zeros((N, 2))}, {GROUP: np.full((N, 1), np.nan)}):
        with pytest.raises(ContractError, match="what the plant accepted"):
            twin.advance(wrong, plant.clock_s + DT_S)


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, twinloop.deploy.live_twin, twinloop.deploy.live_stretch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nine_turbines_are_found_from_power_alone() -> None:
    found = track(CASES[1], 0, 64, until_s=500.0)
    assert found.settled_s < 400.0
    assert found.speed_error_mps < 0.2
    assert found.direction_error_deg < 1.0
    assert found.cpu_s < 0.2
    assert found.coverage > 0.85  # 180 readings of one seed; the benchmark has the figure
