"""The reader of C-MAPSS' text files: a made-up set by value, the real one by what is published of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests.envs.prognosis.engines import made_up, write_set

from twinloop.envs.errors import ConfigurationError
from twinloop.envs.prognosis.boosting import BoostingSettings, fit
from twinloop.envs.prognosis.cmapss import SENSORS, read_cmapss, read_engines
from twinloop.envs.prognosis.decision import at_the_last_chance, best_age, by_age, to_failure
from twinloop.envs.prognosis.score import rmse

REAL = os.environ.get("TWINLOOP_CMAPSS")


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_set(tmp_path, 3, 2, seed=5)
    found = read_cmapss(tmp_path)
    train, _ = made_up(3, 5, cut=False)
    test, left = made_up(2, 6, cut=True)
    assert [u.failed for u in (*found.train.units, *found.test.units)] == [True] * 3 + [False] * 2
    assert np.vstack([u.signals for u in found.train.units]) == pytest.approx(train[:, 2:], rel=1e-5)
    assert found.test.lives.tolist() == np.unique(test[:, 0], return_counts=True)[1].tolist()
    assert found.left.tolist() == left.tolist()
    assert found.train.with_signals(SENSORS).units[0].signals[0] == pytest.approx(train[0, 5:], rel=1e-5)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda t: t[:, :-1], "expected lines of 26"),
        (lambda t: np.delete(t, 3, axis=0), "not 1, 2, 3"),
        (lambda t: np.vstack((t, t[t[:, 0] == 1])), "do not stand together"),
        (lambda t: np.where(np.arange(26) == 9, np.nan, t), "finite numbers"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, spoilt: object, said: str) -> None:
    assert callable(spoilt)
    np.savetxt(tmp_path / "train.txt", spoilt(made_up(3, 0, cut=False)[0]))
    with pytest.raises(ConfigurationError, match=said):
        read_engines(tmp_path / "train.txt", failed=True)


def test_missing_files_and_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"train_FD001.txt: cannot be read"):
        read_cmapss(tmp_path)
    with pytest.raises(ConfigurationError, match="FD001, FD002"):
        read_cmapss(tmp_path, "FD009")
    write_set(tmp_path, 2, 2)
    (tmp_path / "RUL_FD001.txt").write_text("5\n")
    with pytest.raises(ConfigurationError, match="1 lines for 2 engines"):
        read_cmapss(tmp_path)


@pytest.mark.skipif(REAL is None, reason="NASA's files are not shipped; TWINLOOP_CMAPSS=FOLDER of the text files")
def test_the_real_engines_are_those_of_the_literature_and_are_predicted_within_12_cycles() -> None:
    assert REAL is not None
    data = read_cmapss(Path(REAL))
    train, test = data.train.with_signals(SENSORS), data.test.with_signals(SENSORS)
    lives = train.lives
    assert (len(lives), lives.sum(), test.lives.sum()) == (100, 20_631, 13_096)
    assert (round(lives.mean(), 1), round(lives.std(), 1), lives.min(), lives.max()) == (206.3, 46.1, 128, 362)
    assert [best_age(lives.tolist(), cf) for cf in (3, 5, 10)] == [146, 134, 127]
    costs = [by_age(lives.tolist(), age).cost(cf) for cf, age in ((3, 146), (5, 134), (10, 127))]
    assert costs == pytest.approx([0.00742, 0.00776, 0.00787], abs=5e-6)
    assert to_failure(lives.tolist()).cost(10) == pytest.approx(0.04847, abs=5e-6)
    assert at_the_last_chance(lives.tolist(), 10).cost(10) == pytest.approx(0.00499, abs=6e-6)
    life, _ = fit(train, BoostingSettings())
    truth = np.minimum(data.left, 125.0)
    now = life.now(test, 30.0)
    assert rmse(life.expected(np.array([t[-1] for t in life.rows(test)])), truth) <= 12.0
    assert 0.85 <= float(((now.low <= truth) & (truth <= now.high)).mean()) <= 0.95
