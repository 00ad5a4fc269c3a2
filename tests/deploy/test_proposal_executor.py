from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.deploy.proposals.executor import Executor
from twinloop.deploy.proposals.folder import ProposalFolder
from twinloop.deploy.proposals.proposal import Proposal, SignedProposal
from twinloop.deploy.shield import Mode
from twinloop.deploy.station.executor_seat import Verdict
from twinloop.deploy.station.order import Order
from twinloop.training.benchmarks.proposal_integrity import COLUMNS, WRONG, attempt
from twinloop.training.benchmarks.proposal_tampering import KINDS
from twinloop.training.benchmarks.proposal_world import Trial, World

STAGES = (("pump/P1",), ("pump/P2", "pump/P3"))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("integrity") / "station", np.random.default_rng(0))


@pytest.fixture
def world(station: World) -> Iterator[World]:
    station.clean()
    yield station
    station.station.people.write_bytes(station.people_json)


def ordered(trial: Trial, kind: str = "execute", executor: Executor | None = None, **seen: Any) -> Verdict:
    order = Order.model_validate(
        {"id": f"order-{kind}", "kind": kind, "by": "anna", "utc_s": 0.0, "expires_utc_s": 1.0, "proposal": trial.id}
    )
    used = executor or trial.executor
    assert used is not None
    return used.order(order, replace(trial.seen, **seen) if seen else trial.seen)


def under_way(world: World, **changes: Any) -> Trial:
    """An execution of three pumps in two stages, which has begun at 0 s; a stage is one period, measured are two."""
    trial = world.trial()
    names = [f"{agent}/flow_m3ph" for stage in STAGES for agent in stage]
    stages = [{"agents": stage, "low": -50.0, "high": 50.0} for stage in STAGES]
    data = trial.signed.proposal.model_dump(mode="json") | {
        "writes": {name: 30.0 + k for k, name in enumerate(names)},
        "rollback": dict.fromkeys(names, 0.0),
        "stages": stages,
    }
    data["gain"] |= {"low": -50.0, "high": 50.0}
    proposal = Proposal.model_validate(data | changes)
    trial.signed = SignedProposal.of(proposal, world.keys[proposal.by])
    approval = trial.approval.model_copy(update={"proposal": proposal.hash})
    key = world.keys[approval.by]
    trial.approval = approval.model_copy(update={"signature": key.sign(approval.message).hex()})
    window = trial.recheck.windows[0].model_copy(update={"today": 150.0})
    trial.recheck = trial.recheck.model_copy(
        update={"proposal": proposal.hash, "windows": (window,) * (len(proposal.stages) + 1)}
    )
    trial.save()
    trial.executor = Executor(world.station, trial.declaration, clock_s=lambda: trial.now_s)
    trial.executor.start()
    verdict = ordered(trial)
    assert verdict.accepted, verdict.why
    return trial


def asked(trial: Trial, k: int, **seen: Any) -> list[float | None]:
    """What is asked of the three pumps in period ``k``."""
    assert trial.executor is not None
    requests = trial.executor.requests(trial.world.seen(k, 10.0 * k, **seen))
    if not requests:
        return [None] * 3
    assert [r.slot for r in requests] == [14]
    return [None if np.isnan(v) else float(v) for v in requests[0].values["pump"][:, 0]]


def status(trial: Trial) -> str:
    found = trial.folder.execution()
    assert found is not None
    return found.status


@pytest.mark.parametrize("name", KINDS)
def test_whatever_is_done_to_it_nothing_but_what_was_approved_is_asked_for(world: World, name: str) -> None:
    count = Counter[str]()
    for _ in range(3):
        attempt(world, name, count)
        world.station.people.write_bytes(world.people_json)
    assert {c: count[c] for c in WRONG} == dict.fromkeys(WRONG, 0)
    assert count["trials"] == 3
    assert set(COLUMNS) > set(WRONG)


def test_stages_begin_one_after_the_other_and_the_writes_stand_until_their_time_is_over(world: World) -> None:
    trial = under_way(world, lasts_s=60.0)
    assert asked(trial, 0) == [30.0, None, None]
    assert asked(trial, 1) == [30.0, 31.0, 32.0]
    assert [asked(trial, k) for k in (2, 3)] == [[30.0, 31.0, 32.0]] * 2
    assert status(trial) == "measuring"
    assert asked(trial, 4) == [30.0, 31.0, 32.0]
    assert status(trial) == "standing"
    assert asked(trial, 5) == [30.0, 31.0, 32.0]
    assert asked(trial, 6) == [None] * 3
    assert status(trial) == "done"
    found = trial.folder.execution()
    assert found is not None
    assert found.effects == (0.0, 0.0, 0.0)  # three pumps read 50, forecast were 150 in all


def test_an_effect_outside_of_the_promise_goes_back_by_itself(world: World) -> None:
    trial = under_way(world)
    assert [asked(trial, k) for k in (0, 1, 2)][-1] == [30.0, 31.0, 32.0]
    asked(trial, 3, flow=80.0)
    assert asked(trial, 4, flow=80.0) == [0.0, 0.0, 0.0]
    assert status(trial) == "rolling back"
    found = trial.folder.execution()
    assert found is not None
    assert found.why == "measured 90 m3/h; promised were -50 to 50 m3/h"
    asked(trial, 5)
    assert asked(trial, 6) == [None] * 3
    assert status(trial) == "rolled back"


def test_a_stage_outside_of_its_promise_pauses_and_a_person_decides(world: World) -> None:
    trial = under_way(world)
    asked(trial, 0)
    assert asked(trial, 1, flow=80.0) == [30.0, None, None]
    assert status(trial) == "paused"
    assert asked(trial, 9) == [30.0, None, None]
    assert not ordered(trial, "pause").accepted
    assert ordered(trial, "resume", now_s=90.0).accepted
    assert asked(trial, 10) == [30.0, 31.0, 32.0]
    assert ordered(trial, "rollback", now_s=100.0).accepted
    assert asked(trial, 11) == [None] * 3  # the plant obeys the rollback values already
    assert status(trial) == "rolled back"


def test_a_pause_by_order_holds_the_stage_and_leaves_the_effect_unjudged(world: World) -> None:
    trial = under_way(world)
    asked(trial, 0)
    assert ordered(trial, "pause").accepted
    assert [asked(trial, k) for k in (1, 2, 3)] == [[30.0, None, None]] * 3
    assert ordered(trial, "resume", now_s=30.0).accepted
    for k in range(4, 9):
        asked(trial, k, flow=90.0)
    assert status(trial) == "standing"


def test_a_lost_authority_pauses_and_a_trip_ends_it(world: World) -> None:
    trial = under_way(world)
    asked(trial, 0)
    asked(trial, 1, mode=Mode.BACKUP)
    assert status(trial) == "paused"
    asked(trial, 2, mode=Mode.TRIPPED)
    assert status(trial) == "rolled back"
    assert asked(trial, 3) == [None] * 3
    asked(trial, 4, mode=Mode.SHADOW)  # as after a reset: what is over stays over
    assert status(trial) == "rolled back"


def test_an_asset_that_cannot_be_read_stops_the_roll_out_at_its_stage(world: World) -> None:
    trial = under_way(world)
    asked(trial, 0)
    assert trial.executor is not None
    seen = world.seen(1, 10.0)
    blind = replace(seen, trusted={"pump": np.array([False, True, True])})
    trial.executor.requests(blind)
    assert status(trial) == "paused"


def test_being_asked_twice_in_a_period_changes_nothing(world: World) -> None:
    trial = under_way(world)
    assert asked(trial, 0) == asked(trial, 0) == [30.0, None, None]
    assert asked(trial, 1) == asked(trial, 1) == [30.0, 31.0, 32.0]
    assert status(trial) == "rolling out"


def test_a_restart_ends_it_on_paper_and_the_approval_is_used_up(world: World) -> None:
    trial = under_way(world)
    asked(trial, 0)
    later = Executor(world.station, trial.declaration, clock_s=lambda: trial.now_s)
    later.start()
    assert status(trial) == "rolled back"
    assert not later.requests(world.seen(1, 10.0))
    verdict = ordered(trial, executor=later)
    assert not verdict.accepted
    assert "carried out before" in verdict.why


def test_what_was_used_up_is_on_disk_before_anything_is_asked_for(world: World) -> None:
    trial = under_way(world)
    names = {p.name for p in (world.station.proposals / ".burnt").iterdir()}
    assert names == {trial.signed.proposal.hash, trial.approval.nonce}


def test_a_nonce_that_cannot_be_burnt_sends_nothing(world: World) -> None:
    trial = world.trial()
    trial.save()
    trial.executor = Executor(world.station, trial.declaration, clock_s=lambda: trial.now_s)
    trial.executor.start()
    (world.station.proposals / ".burnt").write_text("in the way")
    verdict = ordered(trial)
    assert not verdict.accepted
    assert "nobody knows what was carried out before" in verdict.why
    assert asked(trial, 0) == [None] * 3


@pytest.mark.parametrize("kind", ["pause", "resume", "rollback"])
def test_an_order_about_what_is_not_carried_out_is_refused(world: World, kind: str) -> None:
    trial = world.trial()
    trial.executor = Executor(world.station, trial.declaration)
    assert ordered(trial, kind).why == f"{kind}: proposal {trial.id} is not being carried out"


def test_a_second_proposal_waits_for_the_first(world: World) -> None:
    first, second = under_way(world), world.trial()
    second.now_s = first.now_s
    second.save()
    verdict = ordered(second, executor=first.executor)
    assert verdict.why == f"proposal {first.id} is being carried out; one at a time: roll it back, or wait"


def test_every_change_is_told_once_for_the_journal(world: World) -> None:
    trial = under_way(world)
    assert trial.executor is not None
    asked(trial, 0)
    assert [row["status"] for row in trial.executor.rows()] == ["rolling out"]
    assert not trial.executor.rows()
    json.dumps(trial.executor.executions(), allow_nan=False)


REFUSALS = {
    "run out": "its approval ran out",
    "control's clock behind": "by this machine's clock; set the clocks right",
    "self-approval": "proposed it himself",
    "approver removed": "is nobody known here",
    "the plant has moved": "pump/P",
    "no authority": "where nothing approved is sent",
    "other limits or nameplate in control": "propose anew",
    "replay": "an approval is good once",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_is_wrong_in_one_sentence(world: World, name: str) -> None:
    trial = world.trial()
    trial.executor = Executor(world.station, trial.declaration, clock_s=lambda: trial.now_s)
    trial.executor.start()
    KINDS[name](trial)
    verdict = ordered(trial)
    assert REFUSALS[name] in verdict.why
    assert "\n" not in verdict.why


def test_a_folder_with_another_name_than_its_proposal_is_refused(world: World, tmp_path: Path) -> None:
    trial = world.trial()
    trial.save()
    trial.folder.path.rename(trial.folder.path.with_name("trial-of-another"))
    with pytest.raises(Exception, match="it belongs into its own folder"):
        ProposalFolder(world.station, "trial-of-another").signed()
