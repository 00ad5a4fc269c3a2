"""What makes a run the control process of a station: its desk, its executor, and the two files that it tells by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...agents.policy import Policy
from ...envs.constraint import Declaration
from ...envs.errors import ConfigurationError
from ..order_desk import OrderDesk
from ..runtime import Period
from ..shield import Mode
from ..summary import Ending
from .control_sheet import write_control
from .desk import StationDesk
from .executor_seat import EmptySeat, Executor
from .folder import StationFolder
from .period_state import PeriodState


class ControlSeat:
    """Put together for one run.

    ``wall_period_s``: None for a plant that is stepped as fast as it goes. ``ending`` is told when the run is over.
    """

    def __init__(
        self,
        station: StationFolder,
        declaration: Declaration,
        ceiling: Mode,
        wall_period_s: float | None,
        sheet: OrderDesk,
    ) -> None:
        plate = declaration.nameplate
        self._station, self._declaration, self._ceiling = station, declaration, ceiling
        self._wall_period_s = wall_period_s or plate.period_s
        self.executor = _executor(station, declaration, self._wall_period_s)
        self.desk = StationDesk(station, plate, ceiling, self._wall_period_s, executor=self.executor, sheet=sheet)
        self.state = PeriodState(station, plate, ceiling, self.desk, self.executor.executions)
        self.ending = Ending.FAILED

    def write_control(
        self, policy: Policy, policy_path: Path | None, endpoint: str | None, journal: Path, watchdog_pid: int | None
    ) -> None:
        """Write ``control.json``; raises :class:`ConfigurationError` where that can't be done."""
        try:
            write_control(
                self._station,
                self._declaration,
                policy,
                ceiling=self._ceiling,
                wall_period_s=self._wall_period_s,
                journal=journal,
                endpoint=endpoint,
                watchdog_pid=watchdog_pid,
                policy_path=policy_path,
            )
        except OSError as error:
            raise ConfigurationError(
                f"{self._station.control}: can't be written ({error.strerror}); give a --station on another disk"
            ) from error


def _executor(station: StationFolder, declaration: Declaration, wall_period_s: float) -> Executor:
    """Who carries out proposals; nobody where nobody is known who could approve one."""
    if not station.people.exists():
        return EmptySeat()
    from ..proposals.executor import Executor as ProposalExecutor

    executor = ProposalExecutor(station, declaration, wall_period_s=wall_period_s, policy_process=True)
    executor.start()
    return executor


@contextmanager
def told(seat: ControlSeat | None, also: Callable[[Period], None]) -> Iterator[Callable[[Period], None]]:
    """Inside, each period goes into the station's ``state.json`` too, which is marked as ended after."""
    if seat is None:
        yield also
        return

    def show(period: Period) -> None:
        seat.state.show(period)
        also(period)

    try:
        yield show
    finally:
        seat.state.close(seat.ending.value)
