"""Boosted remaining life: calibrated on machines never seen, predicted by numpy alone, kept without pickle."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.envs.prognosis.engines import made_up

from twinloop.envs.errors import ArtifactError, ConfigurationError, ContractError
from twinloop.envs.prognosis.boosting import BoostedLife, BoostingSettings, LeftOut, fit
from twinloop.envs.prognosis.calibration import Calibration
from twinloop.envs.prognosis.features import features, n_features
from twinloop.envs.prognosis.history import Fleet, UnitHistory
from twinloop.envs.prognosis.score import coverage, interval_score, phm08, pinball
from twinloop.envs.prognosis.store import load, save
from twinloop.envs.prognosis.trees import Trees

Floats = NDArray[np.float64]
QUICK = BoostingSettings(iterations=60, rows_a_leaf=40, window=20, short=8, cap=60.0)


def fleet(n: int, seed: int, cut: bool) -> tuple[Fleet, Floats]:
    lines, left = made_up(n, seed, cut)
    names = tuple(f"x{k}" for k in range(24))
    units = [lines[lines[:, 0] == e][:, 2:] for e in np.unique(lines[:, 0])]
    return Fleet(names, tuple(UnitHistory(f"e{k}", u, not cut) for k, u in enumerate(units))), left


@pytest.fixture(scope="module", params=["errors", "quantiles"])
def fitted(request: pytest.FixtureRequest) -> tuple[BoostedLife, LeftOut]:
    return fit(fleet(40, 0, cut=False)[0], QUICK.model_copy(update={"interval": request.param}))


def test_intervals_hold_for_machines_never_seen_and_beat_the_spread_of_lives(
    fitted: tuple[BoostedLife, LeftOut],
) -> None:
    life = fitted[0]
    running, left = fleet(250, 7, cut=True)
    truth = np.minimum(left, 60.0)
    now = life.now(running, 20.0)
    share = coverage(now.low, now.high, truth)
    assert 0.9 - 3 * np.sqrt(0.09 / 250) - 0.03 < share  # 40 machines calibrate it: a few percent more or less
    assert np.mean(now.high - now.low) < 0.8 * (np.quantile(truth, 0.95) - np.quantile(truth, 0.05))
    same = [np.full(250, np.quantile(truth, q)) for q in (0.05, 0.95)]  # for every machine alike
    flat = interval_score(same[0], same[1], truth, 0.9)
    assert interval_score(now.low, now.high, truth, 0.9) < 0.7 * flat


def test_chances_are_as_often_right_as_they_say(fitted: tuple[BoostedLife, LeftOut]) -> None:
    running, left = fleet(250, 7, cut=True)
    now = fitted[0].now(running, 20.0)
    happened = left <= 20
    assert abs(now.chance.mean() - happened.mean()) < 0.06
    assert now.chance[happened].mean() > 0.7
    assert now.chance[~happened].mean() < 0.15
    assert ((now.chance > 0) & (now.chance < 1)).all()
    assert (now.alarms(0.5) == (now.chance >= 0.5)).all()


def test_what_was_left_out_was_predicted_by_others(fitted: tuple[BoostedLife, LeftOut]) -> None:
    life, left_out = fitted
    data = fleet(40, 0, cut=False)[0]
    assert left_out.truth[left_out.unit == 3].tolist() == np.minimum(np.arange(data.lives[3])[::-1], 60.0).tolist()
    own = life.expected(np.vstack(life.rows(data)))
    error, error_left_out = (np.abs(p - left_out.truth).mean() for p in (own, left_out.point))
    assert error < error_left_out  # as trees that have seen a machine know it better


def test_the_same_seed_fits_the_same_and_another_one_does_not() -> None:
    data = fleet(15, 1, cut=False)[0]
    few = QUICK.model_copy(update={"iterations": 10, "bands": 1})
    one, again, other = (fit(data, s)[1].point for s in (few, few, few.model_copy(update={"seed": 1})))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_model_comes_back_from_its_file_bit_for_bit_and_runs_without_scikit_learn(
    fitted: tuple[BoostedLife, LeftOut], tmp_path: Path
) -> None:
    running, _ = fleet(5, 9, cut=True)
    save(fitted[0], tmp_path / "m.npz")
    here, there = fitted[0].now(running, 20.0), load(tmp_path / "m.npz").now(running, 20.0)
    assert all(np.array_equal(getattr(here, k), getattr(there, k)) for k in ("median", "low", "high", "chance"))
    program = (
        "import sys\nfor name in ('sklearn', 'torch', 'scipy', 'relife'): sys.modules[name] = None\n"
        "from pathlib import Path\nimport twinloop.envs.prognosis.store as s\n"
        f"print(s.load(Path({str(tmp_path / 'm.npz')!r})).point.predict(__import__('numpy').zeros((1, 1000))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_damaged_or_no_model_is_refused(fitted: tuple[BoostedLife, LeftOut], tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    save(fitted[0], path)
    whole = path.read_bytes()
    for k in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :])
        try:
            same = load(path)
        except ArtifactError:
            continue
        assert same.settings == fitted[0].settings  # a byte that the zip format does not use
        assert all(np.array_equal(v, fitted[0].arrays()[k]) for k, v in same.arrays().items())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="no fitted estimator"):
        load(path)
    with pytest.raises(ArtifactError, match="no such file"):
        load(tmp_path / "none.npz")
    arrays = {"digest": np.array("0"), "told": np.array("{}"), "evil": np.array([{}], dtype=object)}
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(ArtifactError, match="no fitted estimator"):  # objects are pickles, which are not read
        load(path)


def test_arrays_that_would_walk_in_circles_are_no_trees() -> None:
    good = {
        "base": np.array(1.0), "share": np.array(1.0), "feature": np.zeros((1, 3), int), "threshold": np.zeros((1, 3)),
        "left": np.array([[1, 1, 2]]), "right": np.array([[2, 1, 2]]), "value": np.array([[0.0, 5.0, 7.0]]),
    }  # fmt: skip
    assert Trees.from_arrays(good).predict(np.array([[-1.0], [0.0], [1.0]])).tolist() == [6.0, 6.0, 8.0]
    with pytest.raises(ContractError, match="before it"):
        Trees.from_arrays(good | {"right": np.array([[2, 1, 0]])})
    with pytest.raises(ContractError, match="shapes"):
        Trees.from_arrays(good | {"value": np.zeros((1, 2))})


def test_features_are_those_of_the_past_alone() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    found = features(x, 10, 4)
    assert found.shape == (50, n_features(2))
    later = x.copy()
    later[30:] += 100.0
    assert np.array_equal(features(later, 10, 4)[:30], found[:30])
    t, seen = 40, x[31:41]
    mean, new = seen.mean(0), x[:10].mean(0)
    trend, short = (np.polyfit(np.arange(n), x[41 - n : 41], 1)[0] for n in (10, 4))
    expected = (mean, seen.std(0), trend, x[37:41].mean(0), short, mean - new, x[37:41].mean(0) - new, [41])
    assert found[t] == pytest.approx(np.concatenate(expected))


def test_calibration_counts_each_machine_once() -> None:
    # ten machines are right at all of many cycles, ten are off by 10 at few: half of the machines are off
    units = np.concatenate((np.repeat(np.arange(10), 90), np.repeat(np.arange(10, 20), 10)))
    truth = np.where(units < 10, 50.0, 60.0)
    calibration = Calibration.of(np.full(len(units), 50.0), truth, units, 1)
    at = np.array([50.0])
    assert calibration.quantile(at, 0.8)[0] == 10.0
    assert calibration.quantile(at, 0.2)[0] == 0.0
    assert calibration.chance_below(at, 55.0)[0] == pytest.approx(10.5 / 21)
    with pytest.raises(ConfigurationError, match="at least 10"):
        Calibration.of(np.zeros(9), np.zeros(9), np.arange(9), 1)


def test_conformal_intervals_hold_for_exchangeable_machines() -> None:
    # exact result: with n machines and one cycle each, coverage is within 1/(n + 1) above the level
    rng, hits = np.random.default_rng(3), []
    for _ in range(600):
        errors = rng.exponential(size=31)
        calibration = Calibration.of(np.zeros(30), errors[:30], np.arange(30), 1)
        low, high = (calibration.quantile(np.zeros(1), q)[0] for q in (0.1, 0.9))
        hits.append(low <= errors[30] <= high)
    assert 0.8 - 3 * 0.0163 < np.mean(hits) < 0.8 + 2 / 31 + 3 * 0.0163


def test_scores_by_hand() -> None:
    assert phm08(np.array([10.0, 0.0]), np.array([0.0, 13.0])) == pytest.approx(2 * np.expm1(1.0))
    assert pinball(np.array([1.0, 1.0]), np.array([3.0, 0.0]), 0.9) == pytest.approx((1.8 + 0.1) / 2)
    assert interval_score(np.array([0.0]), np.array([2.0]), np.array([3.0]), 0.9) == pytest.approx(2 + 20)


def test_what_cannot_be_fitted_is_refused_with_the_remedy(fitted: tuple[BoostedLife, LeftOut]) -> None:
    data = fleet(15, 1, cut=False)[0]
    still = replace(data, units=tuple(UnitHistory(u.name, np.ones_like(u.signals), True) for u in data.units))
    for unfit, said in ((data.pick(range(9)), "give 10 or more"), (still, "ever changes")):
        with pytest.raises(ConfigurationError, match=said):
            fit(unfit, QUICK)
    with pytest.raises(ConfigurationError, match="less than the cap of 60"):
        fitted[0].now(data, 60.0)
    with pytest.raises(ConfigurationError, match="x1"):
        fitted[0].now(Fleet(("y",), (UnitHistory("a", np.ones((5, 1)), False),)), 20.0)
