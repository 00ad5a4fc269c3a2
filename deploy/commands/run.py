"""``twinloop run``: a policy on a plant, through the shield."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from ...agents.named import POLICIES, named_policy
from ...agents.policy import Policy
from ...envs.commands.overrides import add_overrides
from ...envs.constraint import Declaration
from ...envs.errors import ConfigurationError, nearest
from ...envs.nameplate import Nameplate
from ..arbitration.priority_array import Slot
from ..audit.metrics import served
from ..emergency_stop import stop_on_key, stop_on_signal
from ..heartbeat import DEFAULT_PERIODS, Watched, watchdog_command
from ..journal import Journal
from ..order_desk import OrderDesk
from ..own_assets import named_assets
from ..plants import LOCAL_SCHEME, declared_limits, open_plant, plant_requirements
from ..policy_process import PolicyProcess
from ..run_display import RunDisplay
from ..runtime import Runtime, RuntimeSettings
from ..scheduling import garbage_frozen
from ..shield import Mode, Shield, ShieldSettings
from ..shield.orders import ORDERABLE
from ..station.control_seat import ControlSeat, told
from ..station.folder import StationFolder
from ..station.lock import sole_control
from ..summary import LATENCY_EDGES_MS, Ending, RunSummary
from ..watching import watch
from .termination import terminate_as_interrupt
from .timing import add_timing, keep_time

DESCRIPTION = """\
Run a policy artifact on a plant. Each period: read, check the inputs, ask the policy under a deadline, make its
commands safe, check them once more, write the decision to the journal, send, read back.

The plant is a server (--endpoint) or is emulated in this process (--plant). With both, the plant is the server, and the
file tells what its site declares as safe; without the file the nameplate's ranges and rates are the limits. An artifact
that was made for other signals than the plant's is refused, and the signals that differ are listed.

Bad or old measurements are replaced by the last good ones for two periods; then the asset goes to its fallback,
neutral commands that hand it back to its own controller. A policy that is late or fails loses its turn, three times in
a row its part until a reset. With --policy-process (the default of a station) an artifact is evaluated in a process of
its own: one that hangs or dies is ended and replaced, and used again after a reset. A plant that does not answer is
asked again. What cannot be journalled is not sent.

--mode says how much is left to the policy. shadow and advise: nothing is written, and the journal has what would have
been (advised); approved: only what a person approved in --orders; autonomous: what the shield lets pass.

Emergency stop, from every mode, without a login: the key s or the space bar in this terminal, or SIGUSR1 to the process
(`kill -USR1 PID`). All assets go to their safe states within the period and stay there until a reset in --orders, or
until the run ends.

--orders FILE is read each period (YAML or JSON; write it beside and move it there, so that it is never half a file):
  mode: shadow | advise | approved | autonomous    taken up when the file changes, never above --mode
  stop: true                                       emergency stop, as long as it stands there
  reset: true                                      clears what is latched, once each time that the file changes
  approved: [turbine/WT01]                         assets whose proposals may be sent in approved mode
  limits: {farm power: [null, 9000.0]}             ends of named sum limits, only ever tightened
A file that is gone, unreadable or wrong never raises authority: what was ordered stays, approvals lapse, and the log
says so.

--station DIR makes this the control process of a station (docs/station.md): the journal lies there, pages and other
commands read there what goes on, and put their orders there. The stop file DIR/STOP stops it from then on, also after
a restart, until a reset order; one that is started on a plant which already obeys commands goes on from these.

A plant at --endpoint that keeps its own time has a watchdog, in a second process (`twinloop watchdog --help`): should
this process die or stand still for --watchdog-periods and a half periods, it walks the assets to their safe states; and
should the watchdog die, this process does so itself.

Ctrl-C ends in order: assets walk back to neutral within their rate limits, and the journal gets its last row. A second
Ctrl-C leaves the walk. The shield is software above the equipment's own safety functions, never one of them.
"""
EPILOG = """\
examples:
  twinloop run runs/demo/train/artifact --plant configs/wind_farm/plant_ablaincourt.yaml --periods 360
  twinloop run runs/demo/train/artifact --endpoint opc.tcp://127.0.0.1:4840/twinloop --journal farm.journal
  twinloop run --policy greedy --plant configs/wind_farm/plant_ablaincourt.yaml --set plant.seed=3 --periods 360
  twinloop run artifact --endpoint opc.tcp://127.0.0.1:4840/twinloop --mode shadow --orders orders.yaml
  twinloop run artifact --endpoint opc.tcp://127.0.0.1:4840/twinloop --mode approved --station stations/north

exit status: 0 done, 130 stopped by Ctrl-C, 2 the plant or the journal was lost, or wrong input.
"""
SHORTEST_PERIOD_S = 0.4
"""A sped-up emulation has periods so short that a busy machine looks dead; the watchdog counts in these at least."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.add_argument("artifact", nargs="?", metavar="ARTIFACT", help="folder of a policy artifact")
    parser.add_argument(
        "--policy",
        metavar="NAME",
        help="instead of an artifact: " + "; ".join(f"{name}, {what}" for name, what in POLICIES.items()),
    )
    parser.add_argument("--endpoint", metavar="URL", help="a running plant, such as opc.tcp://127.0.0.1:4840/twinloop")
    parser.add_argument(
        "--security",
        metavar="DIR",
        help="a client's folder of certificates (`twinloop certificates`); without it only this machine is spoken to",
    )
    parser.add_argument(
        "--plant",
        metavar="FILE.yaml",
        help="a plant to emulate in this process; with --endpoint, what the limits of that plant are taken from",
    )
    add_overrides(parser, "plant.seed=3")
    parser.add_argument("--periods", type=int, metavar="N", help="control periods to run; without it, until Ctrl-C")
    parser.add_argument(
        "--journal",
        type=Path,
        metavar="PATH",
        help="where every decision is recorded, continued if it exists; default journals/SITE-TIME.sqlite, or in the "
        "station",
    )
    parser.add_argument("--station", type=Path, metavar="DIR", help="the station's folder, made if it is not there")

    parser.add_argument(
        "--assets",
        metavar="GROUP/ASSET[,...]",
        help="command only these, and leave the others to processes of their own; a plant at unix: only. Default: all",
    )
    parser.add_argument(
        "--mode",
        choices=[mode.value for mode in ORDERABLE],
        default=Mode.AUTONOMOUS.value,
        help="how much is left to the policy; default %(default)s",
    )
    parser.add_argument("--orders", type=Path, metavar="FILE", help="what people order while it runs, read each period")
    parser.add_argument(
        "--metrics",
        type=int,
        metavar="PORT",
        help="figures of the loop for Prometheus at http://127.0.0.1:PORT/metrics (extra audit); without it none",
    )
    parser.add_argument(
        "--policy-process",
        action=argparse.BooleanOptionalAction,
        help="evaluate the ARTIFACT in a process of its own, or here; default: with --station in one of its own",
    )
    add_timing(parser)
    parser.add_argument(
        "--watchdog-periods",
        type=int,
        default=DEFAULT_PERIODS,
        metavar="N",
        help="a plant at --endpoint goes to its safe state N and a half periods after this process stood still, "
        f"but not within {SHORTEST_PERIOD_S:g} s a period; default %(default)s, 0 runs without a watchdog",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until the periods are over or Ctrl-C; returns the exit status."""
    if (arguments.artifact is None) == (arguments.policy is None):
        raise ConfigurationError("give either an ARTIFACT folder or --policy NAME, one of them")
    if arguments.periods is not None and arguments.periods < 1:
        raise ConfigurationError(f"--periods: {arguments.periods}; give a positive number of control periods")
    if arguments.policy is not None and arguments.policy not in POLICIES:
        raise ConfigurationError(
            f"--policy: {arguments.policy!r} is not known; known: {', '.join(POLICIES)}"
            f"{nearest(arguments.policy, POLICIES)}"
        )
    if arguments.watchdog_periods < 0:
        raise ConfigurationError(f"--watchdog-periods: {arguments.watchdog_periods}; give 1 or more, or 0 for none")
    if arguments.policy_process and arguments.artifact is None:
        raise ConfigurationError(f"--policy-process: for an ARTIFACT; --policy {arguments.policy} is evaluated here")
    if arguments.assets is not None and not str(arguments.endpoint).startswith(LOCAL_SCHEME):
        raise ConfigurationError(
            f"--assets: {arguments.assets}: needs a plant at {LOCAL_SCHEME}FILE, which takes commands of several "
            f"processes; this one is {arguments.endpoint or arguments.plant}"
        )
    keep_time(arguments)
    sheet = OrderDesk(Mode(arguments.mode), arguments.orders)
    sheet.open()
    if arguments.station is None:
        return _run(arguments, sheet, None)
    station = StationFolder(arguments.station)
    station.make()
    with sole_control(station):
        return _run(arguments, sheet, station)


def _run(arguments: argparse.Namespace, sheet: OrderDesk, station: StationFolder | None) -> int:
    if arguments.endpoint is not None and arguments.plant is not None:
        plant = open_plant(endpoint=arguments.endpoint, security=arguments.security)  # the file tells its limits
    else:
        plant = open_plant(
            endpoint=arguments.endpoint,
            plant_file=arguments.plant,
            overrides=arguments.overrides,
            security=arguments.security,
        )
    console = Console()
    try:
        nameplate = plant.nameplate
        wall_period_s: float | None = getattr(plant, "wall_period_s", None)
        assets = None if arguments.assets is None else named_assets(arguments.assets, nameplate)
        policy = _policy(arguments, nameplate, wall_period_s, assets)
        declaration = declared_limits(nameplate, arguments.plant, arguments.overrides)
        required = plant_requirements(arguments.plant, arguments.overrides)
        shield = Shield(
            declaration,
            settings=ShieldSettings(advises=assets is None),  # others' assets are others' to advise on
            monitors=watch(declaration, policy, console.print, required),
        )
        path = arguments.journal or (_own_journal(nameplate) if station is None else station.journal)
        seat = (
            None if station is None else ControlSeat(station, declaration, Mode(arguments.mode), wall_period_s, sheet)
        )
        stop = sheet.stop if seat is None else seat.desk.stop
        console.print(
            f"{policy.name} on {nameplate.site}: {len(nameplate.agents)} assets, period {nameplate.period_s:g} s, "
            f"journal {path}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        begun_s = time.monotonic()
        with (
            _evaluated(policy),
            Journal(path) as journal,
            _messages_above(console),
            terminate_as_interrupt(),
            _watched(arguments, wall_period_s, declaration) as heartbeat,
            stop_on_signal(stop),
            stop_on_key(stop) as has_key,
            RunDisplay(console, arguments.periods) as display,
            told(seat, display.show) as tell,
            served(arguments.metrics, path, tell) as show,
            garbage_frozen(),
        ):
            if seat is not None:
                folder = None if arguments.artifact is None else Path(arguments.artifact)
                watchdog_pid = None if heartbeat is None else heartbeat.pid
                seat.write_control(policy, folder, arguments.endpoint, path, watchdog_pid)
            console.print(
                f"mode {arguments.mode}; emergency stop: {'the key s or space, or ' if has_key else ''}"
                f"kill -USR1 {os.getpid()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            summary = Runtime(
                plant,
                policy,
                shield,
                journal,
                mode=Mode(arguments.mode),
                orders=sheet if seat is None else None,
                desk=None if seat is None else seat.desk,
                requesters=None if seat is None else {Slot.OPERATOR: seat.desk, Slot.APPROVED: seat.executor},
                heartbeat=heartbeat,
                wall_period_s=wall_period_s,
                # A plant in another time than ours, emulated or sped up, has no clock but its own.
                clock_s=time.monotonic if wall_period_s == nameplate.period_s else None,
                assets=assets,
            ).run(arguments.periods, show)
            if seat is not None:
                seat.ending = summary.ending
    finally:
        plant.close()
    console.print(summary_table(summary, nameplate, path, time.monotonic() - begun_s))
    return {Ending.COMPLETED: 0, Ending.INTERRUPTED: 130}.get(summary.ending, 2)


def _own_journal(nameplate: Nameplate) -> Path:
    return Path("journals") / f"{nameplate.site}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite"


def summary_table(summary: RunSummary, nameplate: Nameplate, journal: Path, took_s: float) -> Table:
    """What a run amounts to, as two columns."""
    hours = summary.periods * nameplate.period_s / 3600.0
    table = Table(show_header=False, box=None, pad_edge=False, title="summary", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("ended", summary.ending.value + (f": {summary.detail}" if summary.detail else ""))
    table.add_row("periods", f"{summary.periods} ({hours:.2f} h of the plant's time) in {took_s:.1f} s")
    if summary.energy_kwh is not None:
        table.add_row("energy", f"{summary.energy_kwh:,.1f} kWh measured")
    counts = ", ".join(f"{code} {n}" for code, n in sorted(summary.interventions.items()))
    table.add_row("interventions", counts or "none")
    table.add_row("on fallback", f"{summary.fallback_periods} periods{', policy tripped' if summary.tripped else ''}")
    table.add_row("on held inputs", f"{summary.substituted_periods} periods")
    table.add_row("plant", f"{summary.plant_errors} errors, {summary.rejected_periods} answers other than sent")
    table.add_row("latency", f"p50 {summary.latency_p50_ms:.2f} ms, p99 {summary.latency_p99_ms:.2f} ms per decision")
    table.add_row("decisions", histogram_text(summary.latency_counts))
    table.add_row("handed back", "yes, all assets at neutral" if summary.handed_back else "NO: commands still stand")
    table.add_row("journal", f"{journal}, head {summary.journal_head or 'none'}")
    return table


def histogram_text(counts: Sequence[int]) -> str:
    """Decisions by latency: how many within each edge of :data:`~..summary.LATENCY_EDGES_MS`, from the one before."""
    told = [f"to {edge:g} ms {n:,}" for edge, n in zip(LATENCY_EDGES_MS, counts, strict=False) if n]
    if counts[-1]:
        told.append(f"longer {counts[-1]:,}")
    return ", ".join(told) or "none"


@contextmanager
def _watched(
    arguments: argparse.Namespace, wall_period_s: float | None, declaration: Declaration
) -> Iterator[Watched | None]:
    """A watchdog for a plant that goes on without us; none for one in this process, or that its clients step."""
    if arguments.endpoint is None or wall_period_s is None or not arguments.watchdog_periods:
        yield None
        return
    period_s = max(wall_period_s, SHORTEST_PERIOD_S)
    command = watchdog_command(
        arguments.endpoint,
        arguments.watchdog_periods,
        period_s,
        arguments.plant,
        arguments.overrides,
        station=arguments.station,
        security=arguments.security,
        assets=arguments.assets,
    )
    with Watched(command, period_s, arguments.watchdog_periods, declaration.hash) as watched:
        yield watched


def _policy(
    arguments: argparse.Namespace, nameplate: Nameplate, wall_period_s: float | None, assets: frozenset[str] | None
) -> Policy:
    if arguments.artifact is not None:
        from ...agents.artifact import load_artifact

        folder, own = Path(arguments.artifact), arguments.policy_process
        if not (arguments.station is not None if own is None else own):
            return load_artifact(folder, nameplate, own=assets)
        settings = RuntimeSettings()
        turn_s = min(settings.deadline_pu * (wall_period_s or nameplate.period_s), settings.deadline_max_s)
        return PolicyProcess(folder, load_artifact(folder, nameplate, graphs=False, own=assets), turn_s)
    return named_policy(arguments.policy, nameplate)


@contextmanager
def _evaluated(policy: Policy) -> Iterator[None]:
    """Inside, a policy that has a process of its own has it running."""
    with ExitStack() as stack:
        if isinstance(policy, PolicyProcess):
            stack.enter_context(policy)
        yield


@contextmanager
def _messages_above(console: Console) -> Iterator[None]:
    """Our own log messages stand above the progress line, and asyncua's traces of lost connections nowhere."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    log, handler = logging.getLogger("twinloop"), RichHandler(console=console, show_path=False)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
