"""What a host hears of its own STATE: who signs it off, and what is none."""

from __future__ import annotations

import pytest

from twinloop.deploy.connectors.mqtt_host import HostState


@pytest.mark.parametrize(
    "payload",
    [b"", b"offline", b"[1]", b'{"online": false}', b'{"online": false, "timestamp": null}',
     b'{"online": false, "timestamp": 1e400}', b'{"online": false, "timestamp": NaN}', b"[" * 1000],
)  # fmt: skip
def test_what_is_no_state_signs_nobody_off(payload: bytes) -> None:
    state = HostState()
    assert not state.hear(payload)
    assert not state.must_sign_on_again


def test_a_later_sign_off_asks_for_a_new_sign_on_and_an_earlier_one_does_not() -> None:
    state = HostState()
    state.sign_on()
    assert not state.hear(b'{"online": true, "timestamp": 9999999999999}')
    assert state.hear(b'{"online": false, "timestamp": 1}')
    assert not state.must_sign_on_again
    assert state.hear(b'{"online": false, "timestamp": 9999999999999}')
    assert state.must_sign_on_again
