"""What every test may count on, wherever the suite was started."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, here and in the processes that tests start.

    A shell without job control starts what it puts into the background with SIGINT ignored, and processes inherit that:
    a test that interrupts a run would wait for ever.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
