"""A line's diagnosis foresees failures of machines that wear, from the last good reading of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from twinloop.envs.diagnosis import History
from twinloop.envs.production_line.analysis.diagnosis import find
from twinloop.envs.production_line.analysis.foreseen import foresee
from twinloop.envs.production_line.analysis.report import LineDiagnosis
from twinloop.envs.production_line.analysis.settings import LineDiagnosisSettings
from twinloop.envs.production_line.config import (
    BernoulliMachine,
    FixedLine,
    GammaWear,
    LineConfig,
    Machine,
    Upkeep,
    Wear,
    WeibullWear,
)
from twinloop.envs.production_line.nameplate import CREW, MACHINE, MEASURED, line_nameplate
from twinloop.envs.production_line.remaining_life import remaining_life

AT = {s.name: k for k, s in enumerate(MEASURED)}
AGE = AT["age_slots"]
QUICK = LineDiagnosisSettings(replicas=16, slots=100, horizon_slots=50.0)


def line(*wears: Wear | None) -> LineConfig:
    machines = tuple(
        Machine(model=BernoulliMachine(efficiency_pu=0.9), upkeep=None if w is None else Upkeep(wear=w)) for w in wears
    )
    return LineConfig(line=FixedLine(machines=machines, capacities=(3,) * (len(wears) - 1)), slots_per_period=10)


WEARING = line(WeibullWear(shape=2.0, scale_slots=1000.0), None, GammaWear(shape_per_slot=0.02, failure_level=15.0))


def history(config: LineConfig, n_periods: int = 40) -> History:
    """Each machine makes nine parts a period and is never kept from it; the first has worked for 700 slots at the end,
    the last was inspected 100 slots ago, at a fifth of the level."""
    plate = line_nameplate(config)
    measured = {g.name: np.zeros((n_periods, g.n_assets, len(g.measured))) for g in plate.groups}
    told = measured[MACHINE]
    told[..., AT["parts"]], told[..., AT["parts_before"]], told[..., AT["room_behind"]] = 9.0, 2.0, 2.0
    ages = 9.0 * np.arange(1 - n_periods, 1)
    told[:, 0, AGE], told[:, -1, AGE] = 700.0 + ages, 500.0 + ages
    told[:, -1, AT["seen_ago_slots"]], told[:, -1, AT["seen_wear_pu"]] = 100.0, 0.2
    good = {name: np.ones(v.shape, dtype=np.bool_) for name, v in measured.items()}
    obeyed = {g.name: np.zeros((n_periods, g.n_assets, len(g.commanded))) for g in plate.groups}
    obeyed[MACHINE][..., :2] = (2.0, 1.0)
    return History(config.dt_s * np.arange(1.0, n_periods + 1), measured, good, obeyed)


def last(told: History) -> NDArray[np.float64]:
    return np.asarray(told.measured[MACHINE][-1])


def test_machines_that_wear_are_told_with_alarms_in_words_numbers_and_a_picture(tmp_path: Path) -> None:
    told = history(WEARING)
    found = LineDiagnosis(find(WEARING, told, QUICK))
    exact = remaining_life(WEARING, last(told), 50.0)
    assert 0.05 > exact.chance[1] > 0.0001
    lives = found.to_dict()["remaining_life"]
    assert list(lives) == ["M1", "M3"]
    assert lives["M1"]["median_slots"] == exact.median[0]
    assert lives["M3"]["chance_to_fail"] == exact.chance[1]
    assert not lives["M1"]["alarm"]  # 7.2 %
    early = LineDiagnosis(find(WEARING, told, QUICK.model_copy(update={"alarm_chance": 0.05})))
    assert early.to_dict()["remaining_life"]["M1"]["alarm"]
    assert [h for h in early.headline if h.startswith("ALARM: M1 fails within 50 slots of work with a chance of 0.07")]
    unread = history(WEARING)
    unread.good[MACHINE][:, 2, AT["seen_wear_pu"]] = False
    (sheet,) = [s for s in LineDiagnosis(find(WEARING, unread, QUICK)).sheets if s.title == "remaining life"]
    assert [row[-1] for row in sheet.rows] == ["0", "as new"]
    (sheet,) = [s for s in early.sheets if s.title == "remaining life"]
    assert [row[0] for row in sheet.rows] == ["M1", "M3"]
    assert [row[-2:] for row in sheet.rows] == [("ALARM", "0"), ("", "0")]
    early.draw(tmp_path / "line.svg")
    assert "Remaining life" in (tmp_path / "line.svg").read_text(encoding="utf-8")


def test_a_bad_reading_falls_back_on_the_last_good_one_and_none_counts_as_new() -> None:
    told = history(WEARING)
    told.good[MACHINE][-3:, 0, AGE] = False
    told.good[MACHINE][:, 2, AT["seen_wear_pu"]] = False
    found = foresee(WEARING, told, 50.0, 0.1)
    assert found.ago is not None
    assert found.ago.tolist() == [3, -1]
    before = last(told).copy()
    before[0] = told.measured[MACHINE][-4, 0]
    before[2] = 0.0
    assert found.estimate.chance == pytest.approx(remaining_life(WEARING, before, 50.0).chance)


def test_a_line_that_nobody_measured_is_as_new() -> None:
    found = foresee(WEARING, None, None, 0.1)
    assert found.ago is None
    assert found.estimate.horizon == 75  # a tenth of the shorter mean life, 750 slots
    assert found.estimate.chance[0] == pytest.approx(-np.expm1(-(0.075**2)), rel=1e-6)


def test_a_line_that_does_not_wear_has_no_such_section() -> None:
    plain = line(None, None)
    found = LineDiagnosis(find(plain, history(plain), QUICK))
    assert "remaining_life" not in found.to_dict()
    assert "remaining life" not in [s.title for s in found.sheets]


def test_the_dispatcher_is_not_read() -> None:
    told = history(WEARING)
    told.good[CREW][:] = False
    assert foresee(WEARING, told, 50.0, 0.1).ago is not None
