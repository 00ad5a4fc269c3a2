"""A policy on a plant behind a shield, for as long as asked; :mod:`.loop` is what happens each period.

Whatever fails costs its part of one period. A plant that gives no reading is held and then sent to fallback; a policy
that is late or raises loses its turn, and after some turns the rest of the run; a journal that cannot be written
stops all writing. A run always says how it ended, and hands the assets back to their own controllers when it can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ..agents.policy import Policy
from ..envs.configuration import Strict
from ..envs.errors import ContractError
from ..envs.plant import Arrays, Plant
from .arbitration.request import Requester
from .journal import Journal
from .loop import Loop, Period
from .shield import Mode, Shield, ShieldState
from .shield.orders import Orders
from .summary import RunSummary

__all__ = ["Desk", "Heartbeat", "Period", "Runtime", "RuntimeSettings"]


class RuntimeSettings(Strict):
    """How patient the loop is."""

    deadline_pu: PositiveFloat = Field(default=0.2, le=1.0, description="share of a period that the policy may take")
    deadline_max_s: PositiveFloat = Field(default=5.0, description="longest wait for a policy, however long the period")
    decision_pu: PositiveFloat = Field(
        default=0.5, description="share of a period that inputs, policy, shield and journal may take together"
    )
    decision_max_s: PositiveFloat = Field(default=10.0, description="longest wait for a decision as a whole")
    trip_after: PositiveInt = Field(default=3, description="late or failed turns in a row that end the policy's part")
    max_plant_failures: PositiveInt = Field(default=30, description="periods in a row without plant before giving up")
    plant_patience_s: NonNegativeFloat = Field(
        default=10.0, description="and seconds of the wall at least, where periods are shorter than half a second"
    )
    max_journal_failures: PositiveInt = Field(default=3, description="periods in a row without a row before giving up")
    retry_wait_s: NonNegativeFloat = Field(default=1.0, description="pause before asking a failed plant again")
    hand_back_periods: NonNegativeInt = Field(
        default=200, description="most periods of walking back to neutral at the end; 0 leaves the last commands"
    )

    @model_validator(mode="after")
    def _the_whole_takes_longer_than_its_part(self) -> RuntimeSettings:
        if self.decision_pu <= self.deadline_pu or self.decision_max_s <= self.deadline_max_s:
            raise ValueError(
                "decision_pu and decision_max_s are for the policy and all that follows it; give more than deadline_pu "
                "and deadline_max_s, which are for the policy alone"
            )
        return self


class Heartbeat(Protocol):
    """Where the loop says that it lives; :class:`~.heartbeat.Watched` sends it to the watchdog's process."""

    @property
    def lost(self) -> str:
        """Why nobody watches any more; empty while somebody does."""
        ...

    def beat(self, standby: Arrays, stopped: bool = False) -> None:
        """Say that the loop lives, and what to send first should it not: ``[N, A]`` a group. Never blocks or raises.

        ``stopped``: no policy commands anything, because an emergency stop is carried out.
        """
        ...


class Desk(Protocol):
    """Where people's orders come in that are journalled; :class:`~.station.desk.StationDesk` is one.

    ``orders`` and ``rows`` are called in a thread of their own and may take long (:mod:`.desk_link`); the others may
    not, and are called from any.
    """

    @property
    def is_pressed(self) -> bool:
        """Whether somebody has pressed the emergency stop, as far as is known without asking a disk."""
        ...

    def stop(self, by: str) -> None:
        """Emergency stop, held until a reset."""
        ...

    def orders(self, number: int, now_s: float, state: ShieldState) -> Orders:
        """What is asked for the period of this ``number``, from ``state``, at the plant's ``now_s``."""
        ...

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """What is to be journalled before the next decision."""
        ...


class Runtime:
    """Runs one policy on one plant behind one shield; everything is journalled before it is sent.

    What the plant obeys is taken from its readings where they tell (:mod:`.transition`). A plant that tells nothing is
    taken to obey its neutral commands at the start: rates are kept from there, and its first answer says the rest. The
    runtime never resets or closes the plant.

    ``mode``: the authority that every asset starts with; where ``assets`` are given, only these, and what the others
    obey is never written. ``orders`` is asked each period for what people want (:class:`~.order_desk.OrderDesk`); a
    ``desk`` takes its place where orders are journalled, and asks it itself.
    ``requesters``: who may ask for commands besides the policy, by slot (:mod:`.arbitration`), and ``monotonic_s`` the
    clock by which what they ask expires. ``heartbeat`` is told each period that the loop lives; when nobody hears it
    any more, all assets go to their safe states. ``wall_period_s``: how long a period lasts on the wall, where that is
    not the nameplate's period; budgets are shares of it. ``clock_s``: a clock in the plant's seconds that never steps
    back, for the shield; None: the plant's own.
    """

    def __init__(
        self,
        plant: Plant,
        policy: Policy,
        shield: Shield,
        journal: Journal,
        settings: RuntimeSettings | None = None,
        *,
        mode: Mode = Mode.AUTONOMOUS,
        orders: Callable[[], Orders] | None = None,
        heartbeat: Heartbeat | None = None,
        wall_period_s: float | None = None,
        clock_s: Callable[[], float] | None = None,
        desk: Desk | None = None,
        requesters: Mapping[int, Requester] | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        assets: Collection[str] | None = None,
    ) -> None:
        self.plant = plant
        self.policy = policy
        self.shield = shield
        self.journal = journal
        self.settings = settings or RuntimeSettings()
        self.mode = mode
        self.orders = orders
        self.heartbeat = heartbeat
        self.wall_period_s = wall_period_s
        self.clock_s = clock_s
        self.desk = desk
        self.requesters = requesters
        self.monotonic_s = monotonic_s
        self.assets = assets

    def run(self, n_periods: int | None, on_period: Callable[[Period], None] | None = None) -> RunSummary:
        """Control the plant for ``n_periods`` (None: until interrupted) and say how it went.

        Ctrl-C (KeyboardInterrupt) ends the run in order: the shield walks all assets to neutral within their rate
        limits, and the journal gets its end row. A second Ctrl-C leaves the walk. Raises :class:`ContractError` before
        the first period when policy, shield and plant are not of one site, or orders would come from two sides.
        """
        if self.orders is not None and self.desk is not None:
            raise ContractError("orders and desk are both given; give the orders to the desk, which asks for them")
        plate = self.plant.nameplate
        for who, other in (("policy", self.policy.nameplate), ("shield", self.shield.nameplate)):
            differences = other.differences(plate, interface_only=True)
            if not differences and other.agents != plate.agents:
                differences = [f"assets {list(other.agents)} here, {list(plate.agents)} there"]
            if differences:
                raise ContractError(
                    f"the {who} is made for {other.site!r} (here), the plant is {plate.site!r} (there); they differ: "
                    f"{'; '.join(differences)}; build it from the plant's nameplate"
                )
        return Loop(self, on_period).run(n_periods)
