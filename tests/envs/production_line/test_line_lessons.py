"""Lessons of a line: what a wrong choice loses, by the long run of whole policies, and how short lines are shown."""

from __future__ import annotations

import numpy as np
import pytest

from twinloop.envs.production_line.config import BernoulliMachine, FixedLine, LineConfig, Machine, RandomLine
from twinloop.envs.production_line.exact_control import ON, ControlledLine
from twinloop.envs.production_line.lessons import line_lesson
from twinloop.envs.production_line.nameplate import MACHINE
from twinloop.envs.production_line.site import SITE
from twinloop.envs.teacher import TeachingSite

OPTIONS = {"part_value": 120.0, "energy_weight": 60.0}
MACHINES = tuple(Machine(model=BernoulliMachine(efficiency_pu=p), warm_up_slots=1) for p in (0.9, 0.75, 0.9))
FIXED = LineConfig(line=FixedLine(machines=MACHINES, capacities=(3, 2)), modes=("off", "on"), speeds=(0.6, 1.0))
RANDOM = LineConfig(
    line=RandomLine(machines=(2, 4), capacity=(1, 2), machine=Machine(warm_up_slots=1)), modes=("off", "on")
)


def test_a_policy_earns_less_than_the_best_by_the_regrets_of_where_it_goes() -> None:
    """The performance difference lemma (Kakade & Langford 2002), for average rewards; any policy will do."""
    line = ControlledLine.of(FIXED, part_value=120.0, energy_weight=60.0)
    best, regret = line.regret(1e-9)
    assert regret.min() >= 0.0
    assert np.array_equal(regret[best.choice, np.arange(line.n_states)], np.zeros(line.n_states))
    rng = np.random.default_rng(0)
    for _ in range(3):
        some = line.worth(rng.integers(len(regret), size=line.n_states))
        lost = float(some.share @ regret[some.choice, np.arange(line.n_states)])
        assert lost == pytest.approx(best.gain - some.gain, rel=1e-6)


def test_a_level_loses_what_its_joint_choice_does_while_the_others_do_their_best() -> None:
    lesson = line_lesson(FIXED, OPTIONS, 0, 50)
    line = ControlledLine.of(FIXED, part_value=120.0, energy_weight=60.0)
    best, regret = line.regret()
    measured = lesson.observation.measured[MACHINE]
    levels = measured[:, 1:, 1].astype(np.int64)
    mode = np.where(measured[:, :, 0] > 4.5, 0, ON)
    states = line.state_of(levels, mode, measured[:, :, 8].astype(np.int64))
    for row, state in enumerate(states):
        choice = best.choice[state]
        for i in range(3):
            for level, wanted in enumerate((0, ON)):
                mode_of = np.tile(line.mode_of[choice], (2, 1))
                speed_of = np.tile(line.speed_of[choice], (2, 1))
                mode_of[:, i], speed_of[:, i] = wanted, (0.6, 1.0)
                lost = min(
                    regret[k, state]
                    for m, s in zip(mode_of, speed_of, strict=True)
                    for k in np.flatnonzero(
                        (line.mode_of == m).all(1) & ((line.speed_of == s) | (line.mode_of != ON)).all(1)
                    )
                )
                assert lesson.regret["mode"][row, i, level] == pytest.approx(lost, abs=1e-9)
    assert (lesson.regret["speed_pu"].min(-1) == 0.0).all()


def test_short_lines_leave_the_last_places_empty() -> None:
    lessons = [line_lesson(RANDOM, OPTIONS, seed, 20) for seed in range(8)]
    sizes = set()
    for lesson in lessons:
        present = lesson.observation.present[MACHINE]
        n = int(present[0].sum())
        sizes.add(n)
        assert present.shape == (20, 4)
        assert (present == (np.arange(4) < n)).all()
        assert not lesson.observation.measured[MACHINE][:, n:].any()
        assert not any(regret[:, n:].any() for regret in lesson.regret.values())
    assert sizes == {2, 3, 4}


def test_the_same_seed_gives_the_same_lesson() -> None:
    assert isinstance(SITE, TeachingSite)
    one, two = (SITE.lesson(RANDOM, "line_profit", OPTIONS, 5, 10) for _ in range(2))
    np.testing.assert_array_equal(one.observation.measured[MACHINE], two.observation.measured[MACHINE])
    np.testing.assert_array_equal(one.regret["mode"], two.regret["mode"])
