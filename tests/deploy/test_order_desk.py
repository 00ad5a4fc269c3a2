"""What a file, a key or a signal orders, and that nothing wrong ever raises authority."""

from __future__ import annotations

import os
import pty
import signal
import time
from pathlib import Path

import pytest

from twinloop.deploy.emergency_stop import stop_on_key, stop_on_signal
from twinloop.deploy.order_desk import OrderDesk
from twinloop.deploy.shield import Mode
from twinloop.deploy.shield.orders import Orders
from twinloop.envs.errors import ConfigurationError


def put(path: Path, text: str) -> None:
    """Write as a careful operator does: beside, then moved there."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "orders.yaml"
    put(path, "")
    return path


NOTHING = Orders(approved=frozenset())


def test_an_empty_file_orders_nothing(sheet: Path) -> None:
    desk = OrderDesk(path=sheet)
    desk.open()
    assert [desk(), desk()] == [NOTHING, NOTHING]
    assert desk.change == ""


def test_without_a_file_only_the_stop_speaks() -> None:
    desk = OrderDesk()
    desk.open()
    assert desk() == NOTHING
    desk.stop("key")
    assert [desk().stop, desk().stop] == [True, True]
    assert desk.change == "emergency stop by key"


def test_mode_and_reset_are_events_and_the_rest_stands(sheet: Path) -> None:
    desk = OrderDesk(path=sheet)
    desk()
    put(sheet, "mode: shadow\nreset: true\napproved: [a/B]\nlimits: {cap: [null, 5]}\n")
    first, second = desk(), desk()
    assert (first.mode, first.reset) == (Mode.SHADOW, True)
    assert (second.mode, second.reset) == (None, False)
    assert first.approved == second.approved == frozenset({"a/B"})
    assert first.limits == second.limits == {"cap": (None, 5.0)}
    assert desk.change == "orders file: mode shadow, reset"


def test_json_is_as_good(sheet: Path) -> None:
    desk = OrderDesk(path=sheet)
    put(sheet, '{"mode": "advise", "stop": true}')
    orders = desk()
    assert (orders.mode, orders.stop) == (Mode.ADVISE, True)


@pytest.mark.parametrize("ceiling", [Mode.SHADOW, Mode.ADVISE, Mode.APPROVED, Mode.AUTONOMOUS])
@pytest.mark.parametrize("asked", ["shadow", "advise", "approved", "autonomous"])
def test_a_file_never_gives_more_than_the_run_was_started_with(sheet: Path, ceiling: Mode, asked: str) -> None:
    order = [Mode.SHADOW, Mode.ADVISE, Mode.APPROVED, Mode.AUTONOMOUS]
    desk = OrderDesk(ceiling, sheet)
    put(sheet, f"mode: {asked}")
    given = desk().mode
    assert given is not None
    assert order.index(given) == min(order.index(Mode(asked)), order.index(ceiling))


WRONG = ["mode: full", "mode: tripped", "stop: maybe", "stopp: true", "[1, 2]", "mode: [", "\x00", "approved: 7"]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_changes_nothing_but_approvals(sheet: Path, text: str) -> None:
    desk = OrderDesk(path=sheet)
    put(sheet, "mode: advise\nstop: true\napproved: [a/B]\nlimits: {cap: [null, 5]}")
    desk()
    put(sheet, text)
    orders = desk()
    assert orders == Orders(stop=True, approved=frozenset(), limits={"cap": (None, 5.0)})
    assert "not followed" in desk.change
    put(sheet, "mode: autonomous")
    assert desk() == Orders(mode=Mode.AUTONOMOUS, approved=frozenset())


def test_a_file_that_goes_and_comes_back_as_it_was_is_no_new_order(sheet: Path) -> None:
    desk = OrderDesk(path=sheet)
    put(sheet, "mode: autonomous\nreset: true\napproved: [a/B]")
    desk()
    away = sheet.with_name("away")
    sheet.rename(away)
    assert desk() == NOTHING
    away.rename(sheet)
    assert desk() == Orders(approved=frozenset({"a/B"}))


def test_a_stop_by_key_is_held_until_a_reset_that_is_no_stop_itself(sheet: Path) -> None:
    desk = OrderDesk(path=sheet)
    desk.stop("key")
    put(sheet, "stop: true\nreset: true")
    assert desk().stop
    put(sheet, "stop: false")
    assert desk().stop
    put(sheet, "reset: true\nmode: autonomous")
    orders = desk()
    assert (orders.stop, orders.reset, orders.mode) == (False, True, Mode.AUTONOMOUS)
    assert desk() == NOTHING


@pytest.mark.parametrize(("text", "told"), [(None, "no such file"), ("mode: ful", "mode")])
def test_a_run_does_not_start_with_orders_that_it_cannot_follow(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "orders.yaml"
    if text is not None:
        put(path, text)
    with pytest.raises(ConfigurationError, match=told):
        OrderDesk(path=path).open()


def test_the_signal_stops() -> None:
    desk = OrderDesk()
    with stop_on_signal(desk.stop):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
        assert desk().stop
    assert desk.change == "emergency stop by signal SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize(("key", "stops"), [(b"s", True), (b" ", True), (b"S", True), (b"x", False), (b"\n", False)])
def test_the_key_stops_in_a_terminal(key: bytes, stops: bool) -> None:
    desk = OrderDesk()
    people, terminal = pty.openpty()
    with stop_on_key(desk.stop, terminal) as listens:
        assert listens
        os.write(people, key)
        give_up_s = time.monotonic() + (5.0 if stops else 0.4)
        while not desk().stop and time.monotonic() < give_up_s:
            time.sleep(0.02)
        assert desk().stop is stops
    os.close(people)
    os.close(terminal)


def test_without_a_terminal_no_key_is_listened_to() -> None:
    reader, writer = os.pipe()
    with stop_on_key(OrderDesk().stop, reader) as listens:
        assert not listens
    os.close(reader)
    os.close(writer)
