"""The falsifier: it finds what a shield lets through, replays it, and says nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from twinloop.deploy.falsifier import Scheduled, Space, Trial, falsify, search
from twinloop.deploy.falsifier.schedule import ReadingFault, proposal, reading
from twinloop.deploy.falsifier.search import CovarianceSearch, RandomSearch, make_search
from twinloop.deploy.shield import Decision, Shield
from twinloop.envs.constraint import (
    Constraint,
    Declaration,
    MeasuredConstraint,
    RangeConstraint,
    SafeState,
    SumConstraint,
    declare,
)
from twinloop.envs.nameplate import Group, Nameplate, Signal
from twinloop.envs.twin import Parameter

Floats = NDArray[np.float64]
PLATE = Nameplate(
    "tanks",
    1.0,
    (
        Group(
            "tank",
            ("T1", "T2", "T3"),
            (Signal("level_m", "m", 0.0, 10.0),),
            (Signal("valve", "1", 0.0, 1.0, rate_limit_per_s=0.2),),
        ),
    ),
)
CAP = SumConstraint("together", "tank", "valve", "1", maximum=1.5)


class Tanks:
    """``level' = gain * valve - 0.3``, never below 0."""

    parameters = (Parameter("gain", "1", 0.5, 1.5),)

    def __init__(self, constraints: tuple[Constraint, ...] = (CAP,), n_replicas: int = 8) -> None:
        self.declaration: Declaration = declare(PLATE, constraints, {"tank": SafeState("neutral")})
        self.n_replicas = n_replicas
        self.present: dict[str, NDArray[np.bool_]] = {}
        self._level = np.zeros((n_replicas, 3))
        self._gain = np.ones(n_replicas)

    def start(self, seeds: NDArray[np.int64], parameters: Mapping[str, Floats]) -> dict[str, Floats]:
        rows = [np.random.default_rng(int(seed)).uniform(1.0, 2.0, 3) for seed in seeds]
        self._level, self._gain = np.array(rows), parameters.get("gain", np.ones(len(seeds)))
        return {"tank": self._level[..., None].copy()}

    def step(self, commands: Mapping[str, Floats]) -> dict[str, Floats]:
        inflow = self._gain[:, None] * commands["tank"][..., 0]
        self._level = np.clip(self._level + inflow - 0.3, 0.0, 10.0)
        return {"tank": self._level[..., None].copy()}


class Raw(Shield):
    """Sends what it is told, as the libraries of the fact sheet do."""

    def filter(self, telemetry: Any, proposed: Any, now_s: float, state: Any, **options: Any) -> Decision:
        safe = super().filter(telemetry, proposed, now_s, state, **options)
        raw = proposed.get("tank") if isinstance(proposed, Mapping) else None
        if isinstance(raw, np.ndarray) and raw.shape == (3, 1):
            return replace(safe, commands={"tank": raw}, state=replace(safe.state, applied={"tank": raw}))
        return safe


def test_a_shield_that_keeps_what_is_declared_is_not_broken() -> None:
    model = Tanks()
    found = falsify(model, Shield(model.declaration), 64, 20)
    assert found.broken == ()
    assert found.failed == 0
    assert found.agent_steps == 64 * 20 * 3
    assert found.changed > 0
    assert {f.constraint for f in found.findings} == {c.name for c in model.declaration.constraints}
    assert min(f.margin for f in found.findings if f.constraint == "together") == pytest.approx(0.0, abs=1e-9)


def test_a_shield_of_another_declaration_is_broken_and_the_finding_replays() -> None:
    model = Tanks()
    lax = Shield(declare(PLATE, (), {"tank": SafeState("neutral")}))
    found = falsify(model, lax, 64, 20)
    assert {f.constraint for f in found.broken} == {"together"}
    worst = min(found.broken, key=lambda f: f.margin)
    assert worst.violations > 0
    assert worst.margin < -0.5  # the search goes on beyond the first break
    space = Space(PLATE, 20, model.parameters, worst.faulty_messages)
    alone = Tanks(n_replicas=1)
    weather = np.array([worst.seed])
    gains = {name: np.array([value]) for name, value in worst.schedule.parameters.items()}
    again = Trial(alone, lax).run(Scheduled(space, [worst.schedule], worst.seed), weather, 20, gains)
    assert again.least["together"][0] == worst.margin
    assert again.at_step["together"][0] == worst.step


def test_raw_and_no_number_commands_are_seen() -> None:
    model = Tanks()
    found = falsify(model, Raw(model.declaration), 64, 20)
    broken = {f.constraint: f.margin for f in found.broken}
    assert set(broken) == {"together", "tank/valve range", "tank/valve rate"}
    assert min(broken.values()) == -np.inf


def test_a_shield_that_fails_inside_is_told_although_its_last_resort_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tanks()
    shield = Shield(model.declaration)

    def raises(*_: Any) -> Decision:
        raise ZeroDivisionError

    monkeypatch.setattr(shield, "_filter", raises)
    found = falsify(model, shield, 16, 5)
    assert found.failed == 16 * 5
    assert found.broken == ()


def test_what_is_measured_counts_under_sound_messages_and_not_under_faulty_ones() -> None:
    overflow = MeasuredConstraint("not over", "tank", "level_m", "m", maximum=6.0)
    model = Tanks((overflow,))
    found = falsify(model, Shield(model.declaration), 32, 30)
    told = {f.faulty_messages: f for f in found.findings if f.constraint == "not over"}
    assert told[False].violated
    assert told[False].asked
    assert not told[True].asked
    assert {(f.constraint, f.faulty_messages) for f in found.broken} == {("not over", False)}


def test_soft_constraints_are_reported_and_break_nothing() -> None:
    wish = RangeConstraint("tank", "valve", 0.0, 0.5, "1", priority=0)
    level = MeasuredConstraint("full enough", "tank", "level_m", "m", minimum=3.0, priority=1)
    model = Tanks((wish, level))
    found = falsify(model, Shield(model.declaration), 32, 20)
    assert any(f.violated for f in found.findings if f.constraint == "full enough")
    assert found.broken == ()


def test_the_same_seed_finds_the_same_and_another_something_else() -> None:
    model = Tanks()
    shield = Shield(model.declaration)
    first, second, third = (falsify(model, shield, 32, 15, seed) for seed in (3, 3, 4))
    margins = [[(f.constraint, f.margin, f.step) for f in found.findings] for found in (first, second, third)]
    assert margins[0] == margins[1]
    assert first.changed == second.changed != third.changed


def test_progress_counts_up_to_the_budget() -> None:
    model = Tanks()
    told: list[tuple[int, int]] = []
    found = falsify(model, Shield(model.declaration), 48, 5, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (found.n_schedules, found.n_schedules) == (48, 48)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.0, 1.0))
def test_every_point_of_the_cube_is_a_schedule(seed: int, faulty: bool, edge: float) -> None:
    space = Space(PLATE, 12, Tanks.parameters, faulty)
    rng = np.random.default_rng(seed)
    point = rng.random(space.n_dimensions)
    point = np.where(rng.random(point.shape) < edge, np.round(point), point)
    schedule = space.schedule(point)
    assert 0.5 <= schedule.parameters["gain"] <= 1.5
    truth = {"tank": np.full((3, 1), 2.0)}
    for step in range(12):
        told = proposal(schedule, step, PLATE)
        if not any(b.on(step) for b in schedule.bursts):
            assert (told["tank"] >= -0.25).all()
            assert (told["tank"] <= 1.25).all()
        got = reading(schedule, step, truth, truth, float(step), PLATE, rng)
        if got is not None and not any(r.on(step) for r in schedule.readings):
            assert (got.values["tank"] == 2.0).all()
            assert got.sequence == step
    assert (truth["tank"] == 2.0).all()
    assert schedule.describe().startswith("commands ")


def test_commands_with_levels_are_proposed_at_levels_or_beyond_the_range() -> None:
    gear = Signal("gear", "1", -1.0, 3.0, levels=(3.0, -1.0, 0.0))
    plate = Nameplate("gears", 1.0, (Group("gear", ("G1", "G2"), (Signal("x", "1", 0.0, 1.0),), (gear,)),))
    space = Space(plate, 8)
    rng = np.random.default_rng(0)
    seen: set[float] = set()
    for _ in range(60):
        schedule = replace(space.schedule(rng.random(space.n_dimensions)), bursts=())
        for step in range(8):
            seen |= set(proposal(schedule, step, plate)["gear"].ravel().tolist())
    inside = {v for v in seen if -1.0 <= v <= 3.0}
    assert inside == {3.0, -1.0, 0.0}
    assert seen > inside


def test_every_fault_can_be_chosen_and_changes_what_arrives() -> None:
    space = Space(PLATE, 10, (), True)
    rng = np.random.default_rng(0)
    first, truth = {"tank": np.full((3, 1), 1.0)}, {"tank": np.full((3, 1), 2.0)}
    seen = set()
    for _ in range(400):
        schedule = space.schedule(rng.random(space.n_dimensions))
        for event in schedule.readings:
            if event.end <= event.begin:
                continue
            alone = replace(schedule, readings=(event,))
            got = reading(alone, event.begin, truth, first, 50.0, PLATE, rng)
            usual = reading(replace(schedule, readings=()), event.begin, truth, first, 50.0, PLATE, rng)
            assert usual is not None
            late = replace(event, begin=event.begin, end=event.end)
            if event.kind == ReadingFault.REPEATED:
                if event.end > event.begin + 1:
                    repeated = reading(
                        replace(schedule, readings=(late,)), event.begin + 1, truth, first, 51.0, PLATE, rng
                    )
                    assert repeated is not None
                    assert repeated.sequence == event.begin
                    seen.add(event.kind)
                continue
            changed = got is None or any(
                not np.array_equal(getattr(got, f)["tank"], getattr(usual, f)["tank"], equal_nan=True)
                for f in ("values", "source_time_s", "quality")
            )
            assert changed, event
            seen.add(event.kind)
    assert seen == set(ReadingFault)


def test_cma_es_learns_and_random_search_does_not_and_neither_touches_the_global_generator() -> None:
    target = np.linspace(0.2, 0.8, 12)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    best = {}
    for kind in (CovarianceSearch, RandomSearch):
        looking: search.Search = kind(12, 12, 7)
        best[kind] = np.inf
        for _ in range(60):
            points = looking.ask()
            assert points.shape == (12, 12)
            assert (points >= 0).all()
            assert (points <= 1).all()
            values = ((points - target) ** 2).sum(axis=1)
            best[kind] = min(best[kind], float(values.min()))
            looking.tell(points, values)
    assert best[CovarianceSearch] < 1e-2 < best[RandomSearch]
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_without_cma_the_search_is_random_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    looking = make_search(5, 8, 0)
    assert isinstance(looking, RandomSearch)
    assert "twinloop[falsify]" in looking.name
    model = Tanks()
    found = falsify(model, Shield(declare(PLATE, ())), 64, 20)
    assert "random" in found.search
    assert found.broken  # what is wide open is found blindly too
