"""Orders of a station in the real loop: each followed once, or refused in words; and every run replays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.deploy.arbitration import Slot
from twinloop.deploy.arbitration.request import Circumstances, Request
from twinloop.deploy.audit.history import export
from twinloop.deploy.audit.query import query
from twinloop.deploy.audit.verify import audit
from twinloop.deploy.journal import Journal, read, verify
from twinloop.deploy.order_desk import OrderDesk
from twinloop.deploy.replay import replay
from twinloop.deploy.runtime import Period, Runtime, RuntimeSettings
from twinloop.deploy.shield import Mode, Shield
from twinloop.deploy.station.desk import MOST_WAIT_S, StationDesk
from twinloop.deploy.station.executor_seat import EmptySeat, Verdict
from twinloop.deploy.station.folder import StationFolder, read_whole
from twinloop.deploy.station.lock import sole_control
from twinloop.deploy.station.order import Order, OrderResult, new_id, place
from twinloop.deploy.station.period_state import PeriodState
from twinloop.envs.errors import ConfigurationError, ContractError
from twinloop.training.benchmarks.arbitration_site import KETTLES, Eager, KettlePlant

AT_ONCE = RuntimeSettings(retry_wait_s=0.0, hand_back_periods=40)
K1, K2 = "kettle/K1", "kettle/K2"
HEAT = "kettle/K1/heat_kw"


class Operated:
    """One station with its plant, and what a person does in each period."""

    def __init__(self, path: Path, mode: Mode = Mode.AUTONOMOUS, **options: Any) -> None:
        self.station = StationFolder(path / "station")
        self.station.make()
        self.plant, self.policy = KettlePlant(), Eager()
        self.mode = mode
        self.clock_s = 0.0
        self.options = options
        self.desk = self.new_desk()
        self.periods: list[Period] = []

    def new_desk(self) -> StationDesk:
        return StationDesk(self.station, KETTLES, self.mode, 1.0, monotonic_s=lambda: self.clock_s, **self.options)

    def order(self, kind: str, *, utc_s: float | None = None, lasts_s: float = 10.0, **fields: Any) -> str:
        if kind == "reset":
            time.sleep(0.03)  # what was pressed less than the times of files can tell before is not reset
        now_s = time.time() if utc_s is None else utc_s
        order = Order.model_validate(
            {"id": new_id(), "kind": kind, "by": "anna", "utc_s": now_s, "expires_utc_s": now_s + 10.0}
            | fields
            | ({"lasts_s": lasts_s} if kind == "manual" else {})
        )
        place(self.station, order)
        return order.id

    def run(self, n_periods: int, act: Mapping[int, Callable[[], Any]] | None = None) -> None:
        """``act``: what happens after the period of that number."""
        state = PeriodState(self.station, KETTLES, self.mode, self.desk, self.desk.executor.executions)

        def on_period(period: Period) -> None:
            state.show(period)
            self.periods.append(period)
            self.clock_s += 1.0
            if act and period.number in act and not period.handing_back:
                act[period.number]()

        summary = Runtime(
            self.plant,
            self.policy,
            Shield(KETTLES),
            Journal(self.station.journal),
            AT_ONCE,
            mode=self.mode,
            desk=self.desk,
            requesters={Slot.OPERATOR: self.desk, Slot.APPROVED: self.desk.executor},
            monotonic_s=lambda: self.clock_s,
        ).run(n_periods, on_period)
        state.close(summary.ending.value)

    def result(self, id: str) -> OrderResult:
        found = read_whole(self.station.done / f"{id}.json")
        assert found is not None, "no result"
        return OrderResult.model_validate(found)

    def assert_replays(self) -> None:
        assert verify(self.station.journal).is_sound
        found = replay(self.station.journal, lambda start: Shield(KETTLES))
        assert found.differences == ()
        assert found.decisions > 0

    def heat(self) -> list[float]:
        return [float(c["kettle"][0, 0]) for _, c in self.plant.log]

    def slots(self, signal: int = 0) -> list[int]:
        return [16 if p.slots is None else int(p.slots["kettle"][0, signal]) for p in self.periods]


def refused(path: Path, order: dict[str, Any], started: Mode = Mode.AUTONOMOUS) -> str:
    """Why an order is refused."""
    here, ids = Operated(path, started), []
    here.run(2, {1: lambda: ids.append(here.order(**order))})
    result = here.result(ids[0])
    assert not result.accepted
    here.assert_replays()
    return result.why


def test_a_manual_value_is_walked_to_within_the_rate_and_released_to_the_policy(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    here.run(
        20,
        {
            4: lambda: here.order("manual", values={HEAT: 8.0}, lasts_s=1000.0),
            10: lambda: here.order("release", assets=[K1]),
        },
    )
    assert here.heat()[:20] == [5, 10, 15, 20, 15, 10, 8, 8, 8, 8, 13, 18, 23, 28, 33, 38, 43, 48, 53, 58]
    assert here.slots()[:20] == [16] * 4 + [8] * 6 + [16] * 10
    assert here.slots(signal=1)[:20] == [16] * 20  # the other command of the same kettle stays the policy's
    assert here.periods[5].who == {K1: "anna"}
    here.assert_replays()


def test_a_manual_value_that_runs_out_falls_back_to_the_policy_and_the_journal_says_so(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    here.run(9, {2: lambda: here.order("manual", values={HEAT: 0.0}, lasts_s=3.0)})
    assert here.slots()[:9] == [16, 16, 8, 8, 8, 16, 16, 16, 16]
    assert here.heat()[:9] == [5, 10, 5, 0, 0, 5, 10, 15, 20]
    ended = [row for row in read(here.station.journal) if row["kind"] == "manual"]
    assert [(r["why"], r["signals"], r["who"]) for r in ended] == [("expired", [HEAT], ["anna"])]
    here.assert_replays()


def test_a_dead_policy_takes_nothing_out_of_a_person_s_hand_and_a_latched_one_neither(tmp_path: Path) -> None:
    here = Operated(tmp_path)

    def kill() -> None:
        here.policy.fails = True

    here.run(12, {2: kill, 6: lambda: here.order("manual", values={HEAT: 30.0}, lasts_s=100.0)})
    assert here.slots()[:12] == [16] * 2 + [12] * 4 + [8] * 6
    assert here.slots(signal=1)[6:12] == [0] * 6  # what nobody commands stays as it is
    assert here.heat()[2:12] == [5, 0, 0, 0, 5, 10, 15, 20, 25, 30]
    assert here.periods[11].decision.mode[K2] is Mode.BACKUP
    here.assert_replays()


def test_in_approved_mode_a_manual_value_is_sent_and_the_policy_s_are_not(tmp_path: Path) -> None:
    here = Operated(tmp_path, Mode.APPROVED)
    here.run(6, {1: lambda: here.order("manual", values={HEAT: 7.0}, lasts_s=100.0)})
    assert here.heat()[:5] == [0, 5, 7, 7, 7]
    assert all(c["kettle"][0, 1] == 0.0 and (c["kettle"][1:] == 0.0).all() for _, c in here.plant.log)
    here.assert_replays()


@pytest.mark.parametrize("press", ["order", "file", "key"])
def test_a_stop_acts_in_the_next_period_ends_what_is_held_and_stays_until_a_reset(tmp_path: Path, press: str) -> None:
    here = Operated(tmp_path)
    ids: list[str] = []

    def stop() -> None:
        if press == "order":
            here.order("stop")
        elif press == "file":
            here.station.stop.write_text("shift B\n")
        else:
            here.desk.stop("key")

    here.run(
        16,
        {
            3: lambda: here.order("manual", values={HEAT: 80.0}, lasts_s=1000.0),
            6: stop,
            8: lambda: ids.append(here.order("mode", mode="autonomous")),
            9: lambda: ids.append(here.order("manual", values={HEAT: 90.0})),
            10: lambda: ids.append(here.order("reset")),
            12: lambda: ids.append(here.order("mode", mode="autonomous")),
        },
    )
    assert [here.result(i).accepted for i in ids] == [False, False, True, True]
    assert "reset" in here.result(ids[0]).why
    assert here.slots()[:16] == [16] * 3 + [8] * 3 + [2] * 4 + [0] * 2 + [16] * 4
    assert here.heat()[6:10] == [25, 20, 15, 10]  # down from 30, at the rate
    assert not here.station.stop.exists()
    here.assert_replays()


def test_a_stop_outlives_the_control_process_and_a_reset_ends_it(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    here.run(4, {2: lambda: here.desk.stop("key")})
    assert here.station.stop.read_text() == "key\n"
    again = Operated(tmp_path)
    again.run(6, {2: lambda: again.order("reset"), 4: lambda: again.order("mode", mode="autonomous")})
    assert again.slots()[:6] == [2, 2, 0, 0, 16, 16]
    again.assert_replays()


def test_a_reset_does_not_end_a_stop_that_was_pressed_after_it(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    ids: list[str] = []

    def reset_then_press() -> None:
        ids.append(here.order("reset"))
        time.sleep(0.02)
        here.desk.stop("key")

    here.run(8, {2: lambda: here.order("stop"), 5: reset_then_press})
    assert not here.result(ids[0]).accepted
    assert here.slots()[:8] == [16] * 2 + [2] * 6


def test_a_stop_and_its_reset_in_one_moment_still_stop_for_a_period(tmp_path: Path) -> None:
    here = Operated(tmp_path)

    def both() -> None:
        here.order("stop")
        here.order("reset")

    here.run(6, {2: both})
    assert here.slots()[:6] == [16, 16, 2, 0, 0, 0]
    here.assert_replays()


def test_an_order_is_followed_once_also_by_the_next_control_process(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    ids: list[str] = []
    here.run(3, {1: lambda: ids.append(here.order("mode", mode="shadow"))})
    text = json.dumps(
        {"id": ids[0], "kind": "mode", "by": "anna", "mode": "advise", "utc_s": time.time() + 1.0}
        | {"expires_utc_s": time.time() + 30.0}
    )
    again = Operated(tmp_path)
    (here.station.inbox / f"{ids[0]}.json").write_text(text)
    again.run(3)
    assert list(here.station.inbox.iterdir()) == []
    assert [p.decision.mode[K1] for p in again.periods[:3]] == [Mode.AUTONOMOUS] * 3
    rows = [r for r in read(here.station.journal) if r["kind"] == "order"]
    assert [(r["id"], r["accepted"], r["order"]["mode"]) for r in rows] == [(ids[0], True, "shadow")]


def test_orders_from_before_the_start_from_last_week_and_of_a_wrong_clock_are_refused_in_words(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    now_s = time.time()
    old = [
        here.order("mode", mode="shadow", utc_s=now_s - 1.0),
        here.order("mode", mode="shadow", utc_s=now_s - 7 * 86400.0, expires_utc_s=now_s + 60.0),
        here.order("mode", mode="shadow", utc_s=now_s + 3600.0, expires_utc_s=now_s + 3700.0),
        here.order("mode", mode="shadow", utc_s=now_s - 3600.0, expires_utc_s=now_s - 3590.0),
        here.order("mode", mode="shadow", utc_s=now_s - 1.1 * MOST_WAIT_S, expires_utc_s=now_s + 60.0),
    ]
    here.run(3)
    told = [here.result(i) for i in old]
    assert not any(r.accepted for r in told)
    for result, words in zip(
        told, ["before this control", "7.0 days", "60.0 minutes ahead", "60.0 minutes ago", "66"], strict=True
    ):
        assert words in result.why, result.why
    assert [p.decision.mode[K1] for p in here.periods[:3]] == [Mode.AUTONOMOUS] * 3


def test_a_stop_is_followed_whatever_its_clock_says(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    stop = here.order("stop", utc_s=time.time() - 3600.0)
    here.run(2)
    assert here.result(stop).accepted
    assert here.slots()[:2] == [2, 2]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "mode"}, "needs mode"),
    ({"kind": "mode", "mode": "shadow", "values": {HEAT: 1.0}}, "has no values"),
    ({"kind": "mode", "mode": "shadow", "assets": ["kettle/K9"]}, "did you mean"),
    ({"kind": "manual"}, "needs values"),
    ({"kind": "manual", "values": {"kettle/K1/heat": 1.0}}, "no such command"),
    ({"kind": "manual", "values": {HEAT: 100.1}}, "outside 0 to 100 kW"),
    ({"kind": "manual", "values": {"fan/F1/stage": 1.5}}, "allowed are 0, 1, 2"),
    ({"kind": "manual", "values": {HEAT: 1.0}, "assets": [K2]}, "other assets"),
    ({"kind": "manual", "values": {HEAT: 1.0}, "lasts_s": 1e6}, "at most 86400"),
    ({"kind": "execute"}, "needs proposal"),
    ({"kind": "execute", "proposal": "P-1"}, "carries out no proposals"),
    ({"kind": "release", "mode": "shadow"}, "has no mode"),
]


@pytest.mark.parametrize(("order", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_order_is_refused_in_words(tmp_path: Path, order: dict[str, Any], words: str) -> None:
    assert words in refused(tmp_path, order)


def test_more_than_the_ceiling_is_refused_with_the_remedy(tmp_path: Path) -> None:
    why = refused(tmp_path, {"kind": "mode", "mode": "approved"}, Mode.ADVISE)
    assert "--mode approved" in why


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.ADVISE])
def test_where_nothing_is_sent_a_manual_value_is_refused_with_the_remedy(tmp_path: Path, mode: Mode) -> None:
    why = refused(tmp_path, {"kind": "manual", "values": {HEAT: 1.0}}, mode)
    assert "order mode approved or autonomous first" in why


FILES = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"id": "00000000"}', b"x" * 70_000, b"[" * 60_000,
    b'{"id": "12345678-a", "kind": "fly", "by": "x", "utc_s": 1, "expires_utc_s": 2}',
    b'{"id": "12345678-a", "kind": "manual", "by": "x", "utc_s": 1, "expires_utc_s": 2, "values": {"a": NaN}}',
    b'{"id": "other-id-1", "kind": "reset", "by": "x", "utc_s": 1, "expires_utc_s": 2}',
]  # fmt: skip


@pytest.mark.parametrize("raw", FILES, ids=range(len(FILES)))
def test_what_is_no_order_is_answered_and_removed(tmp_path: Path, raw: bytes) -> None:
    here = Operated(tmp_path)
    here.run(3, {1: lambda: (here.station.inbox / "12345678-a.json").write_bytes(raw)})
    assert not here.result("12345678-a").accepted
    assert list(here.station.inbox.iterdir()) == []
    here.assert_replays()


def test_a_pipe_a_link_and_a_folder_in_the_inbox_keep_nobody_waiting(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    os.mkfifo(here.station.inbox / "pipe-0001.json")
    (here.station.inbox / "link-0001.json").symlink_to("/dev/zero")
    (here.station.inbox / "folder-01.json").mkdir()
    stop = here.order("stop")
    here.run(2)
    assert here.result(stop).accepted


def test_a_flood_of_orders_is_followed_bit_by_bit_and_a_stop_file_goes_before_all(tmp_path: Path) -> None:
    here = Operated(tmp_path)

    def flood() -> None:
        for i in range(60):
            (here.station.inbox / f"{i:08d}.json").write_bytes(b"{}")
        here.station.stop.touch()

    here.run(4, {1: flood})
    assert len(list(here.station.inbox.iterdir())) == 0
    assert here.slots()[:4] == [16, 2, 2, 2]
    numbers = [r["period"] for r in read(here.station.journal) if r["kind"] == "order"]
    assert numbers == [2] * 20 + [3] * 20 + [4] * 20


def test_an_order_to_stop_goes_before_all_other_orders(tmp_path: Path) -> None:
    here, ids = Operated(tmp_path), list[str]()

    def flood() -> None:
        for i in range(300):
            (here.station.inbox / f"{i:08d}.json").write_bytes(b"{}")
        ids.append(here.order("stop", id="zzzzzzzz"))

    here.run(4, {1: flood})
    assert here.slots()[:4] == [16, 2, 2, 2]
    assert here.result(ids[0]).period == 2
    assert len(list(here.station.inbox.iterdir())) == 300 - 60


def test_nothing_is_carried_out_in_the_period_of_a_stop(tmp_path: Path) -> None:
    here, ids = Operated(tmp_path, executor=Noting()), list[str]()

    def both() -> None:
        ids.append(here.order("stop"))
        ids.append(here.order("execute", proposal="P-1"))

    here.run(3, {1: both})
    assert [here.result(i).accepted for i in ids] == [True, False]
    assert "order reset" in here.result(ids[1]).why


@pytest.mark.parametrize("step_s", [-3600.0, -30.0])
def test_a_clock_that_is_set_back_while_control_runs_locks_nobody_out(tmp_path: Path, step_s: float) -> None:
    offset_s, ids = [0.0], list[str]()
    here = Operated(tmp_path, utc_s=lambda: time.time() + offset_s[0])

    def step() -> None:
        offset_s[0] = step_s
        ids.append(here.order("mode", mode="shadow", utc_s=time.time() + step_s))

    here.run(3, {1: step})
    assert here.result(ids[0]).accepted
    assert here.periods[1].decision.mode[K1] is Mode.SHADOW


class Noting(EmptySeat):
    """Follows every order."""

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        return Verdict(True, "followed")


def test_two_changes_of_authority_that_do_not_go_together_take_two_periods(tmp_path: Path) -> None:
    here = Operated(tmp_path)

    def both() -> None:
        here.order("mode", mode="shadow", assets=[K1])
        here.order("mode", mode="shadow", assets=["fan/F1"])  # goes together with the first
        here.order("mode", mode="advise", assets=[K2])
        here.order("manual", values={"kettle/K3/heat_kw": 50.0})  # waits until modes have changed

    here.run(5, {1: both})
    seen = [[p.decision.mode[a].value for a in (K1, "fan/F1", K2)] for p in here.periods[:4]]
    assert seen == [
        ["autonomous"] * 3,
        ["shadow", "shadow", "autonomous"],
        ["shadow", "shadow", "advise"],
        ["shadow", "shadow", "advise"],
    ]
    assert here.periods[3].who == {"kettle/K3": "anna"}
    here.assert_replays()


def test_the_orders_file_works_beside(tmp_path: Path) -> None:
    sheet = tmp_path / "orders.yaml"
    sheet.write_text("")
    here = Operated(tmp_path, sheet=OrderDesk(Mode.AUTONOMOUS, sheet))

    def put(text: str) -> Callable[[], None]:
        def write() -> None:
            time.sleep(0.03)  # as in Operated.order
            beside = sheet.with_suffix(".new")
            beside.write_text(text)
            beside.replace(sheet)

        return write

    here.run(
        12,
        {
            2: put("mode: advise"),
            4: put("mode: autonomous"),
            6: lambda: here.desk.stop("key"),
            8: put("reset: true"),
            10: put("mode: autonomous"),
        },
    )
    assert here.slots()[:12] == [16] * 2 + [0] * 2 + [16] * 2 + [2] * 2 + [0] * 2 + [16] * 2
    here.assert_replays()


def test_a_run_does_not_take_orders_from_two_sides(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    runtime = Runtime(
        here.plant, here.policy, Shield(KETTLES), Journal(tmp_path / "j"), orders=OrderDesk(), desk=here.desk
    )
    with pytest.raises(ContractError, match="both"):
        runtime.run(1)


class Executing(EmptySeat):
    """Follows every order, and holds one command from then on."""

    def __init__(self) -> None:
        self.seen: list[Circumstances] = []
        self.told: list[Mapping[str, Any]] = []
        self.holds = self.breaks = False

    def order(self, order: Order, seen: Circumstances) -> Verdict:
        self.seen.append(seen)
        self.holds = True
        self.told.append({"proposal": order.proposal, "stage": 1})
        return Verdict(True, "begun", {"nonce": "abc"})

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        if self.breaks:
            raise RuntimeError("executor is broken")
        fan = np.array([[1.0]])
        return (Request(Slot.APPROVED, {"fan": fan}, 2.5, "P-1"),) if self.holds else ()

    def rows(self) -> Sequence[Mapping[str, Any]]:
        told, self.told = self.told, []
        return told


def test_an_executor_s_requests_stand_in_slot_14_and_through_its_failure_no_longer_than_it_said(tmp_path: Path) -> None:
    executor = Executing()
    here = Operated(tmp_path, Mode.APPROVED, executor=executor)

    def fail() -> None:
        executor.breaks = True

    here.run(10, {2: lambda: here.order("execute", proposal="P-1"), 4: fail})
    fan = [16 if p.slots is None else int(p.slots["fan"][0, 0]) for p in here.periods[:10]]
    assert fan == [0, 0, 14, 14, 14, 14, 0, 0, 0, 0]
    assert (executor.seen[0].mode[K1], executor.seen[0].values["fan"].shape) == (Mode.APPROVED, (1, 1))
    rows = read(here.station.journal)
    assert [r["record"] for r in rows if r["kind"] == "order"] == [{"nonce": "abc"}]
    assert [(r["proposal"], r["stage"]) for r in rows if r["kind"] == "execution"] == [("P-1", 1)]
    here.assert_replays()


def test_while_the_equipment_s_own_watchdog_holds_all_commands_are_in_its_slot(tmp_path: Path) -> None:
    here = Operated(tmp_path)

    def hold(value: bool) -> Callable[[], None]:
        def set_it() -> None:
            here.plant.holds = value
            here.plant.commands = {n: np.zeros_like(c) for n, c in here.plant.commands.items()}

        return set_it

    here.run(6, {2: hold(True), 4: hold(False)})
    assert here.slots()[2:4] == [5, 5]
    here.assert_replays()


def test_state_json_says_what_each_period_was(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    here.run(3, {1: lambda: here.order("manual", values={HEAT: 1.0}, lasts_s=100.0)})
    state = read_whole(here.station.state)
    assert state is not None
    assert (state["format"], state["ended"], state["ceiling"], state["stop"]) == (1, "completed", "autonomous", False)
    kettle = state["groups"]["kettle"]
    assert kettle["agents"] == [K1, K2, "kettle/K3"]
    assert len(kettle["measured"]["temperature_degc"]) == len(kettle["slot"]["heat_kw"]) == 3
    assert [o["kind"] for o in state["orders"]] == ["manual"]
    assert set(state["modes"]) == set(KETTLES.agents)
    assert "NaN" not in here.station.state.read_text()


def test_the_audit_and_the_history_take_orders_among_the_periods(tmp_path: Path) -> None:
    here = Operated(tmp_path)
    here.run(6, {n: lambda: here.order("manual", values={HEAT: 8.0}, lasts_s=1.5) for n in (1, 2, 3, 4)})
    kinds = [row["kind"] for row in read(here.station.journal)]
    assert kinds.count("order") == 4
    assert audit(here.station.journal).findings == ()
    export(here.station.journal, here.station.history)
    told = query(here.station.history, 'SELECT number, "kettle/K1/heat_kw@accepted" AS heat FROM history').to_pylist()
    assert [row["heat"] for row in sorted(told, key=lambda row: row["number"])][:6] == here.heat()[:6]


def test_a_second_control_process_is_refused_with_the_first_one_s_number(tmp_path: Path) -> None:
    station = StationFolder(tmp_path / "station")
    station.make()
    refused = pytest.raises(ConfigurationError, match=f"process {os.getpid()} controls")
    with sole_control(station), refused, sole_control(station):
        pytest.fail("two at once")
    with sole_control(station):
        pass


class Counting(Eager):
    """Remembers how many turns in a row each kettle was its own."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[list[float]] = []

    def act(self, observation: Any, memory: Any) -> Any:
        self.turns.append((memory["kettle/turns"][0, :, 0] + 1.0).tolist())
        return super().act(observation, memory)


def test_the_policy_s_memory_of_what_a_person_holds_begins_afresh_when_it_is_released(tmp_path: Path) -> None:
    here, policy = Operated(tmp_path), Counting()
    here.policy = policy
    here.run(9, {2: lambda: here.order("manual", values={HEAT: 8.0}), 5: lambda: here.order("release")})
    assert [t[0] for t in policy.turns[:9]] == [1, 2, 3, 1, 1, 1, 2, 3, 4]
    assert [t[1] for t in policy.turns[:9]] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


class Dawdling(EmptySeat):
    """Takes longer than the whole budget, once."""

    def __init__(self) -> None:
        self.is_late = False

    def requests(self, seen: Circumstances) -> Sequence[Request]:
        late, self.is_late = self.is_late, False
        time.sleep(0.8 if late else 0.0)  # the budget is 0.5 s
        return ()


def test_an_order_that_met_a_late_decision_is_given_again(tmp_path: Path) -> None:
    executor = Dawdling()
    here = Operated(tmp_path, executor=executor)

    def order() -> None:
        here.order("mode", mode="shadow", assets=[K2])
        executor.is_late = True

    here.run(6, {3: order})
    assert [p.decision.mode[K2].value for p in here.periods[:4]] == ["autonomous"] * 4
    assert here.periods[4].decision.mode[K2] is Mode.SHADOW
    kinds = [row["kind"] for row in read(here.station.journal)]
    assert kinds.index("order") < kinds.index("missed")
    here.assert_replays()
