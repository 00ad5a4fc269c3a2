"""The line's nameplate: a group of machines, and where machines wear, a dispatcher of the crews.

Tags follow the usual names of a machine's controller; ISO 22400-2 has the indicators that are made of them.
"""

from __future__ import annotations

from ..nameplate import Group, Nameplate, Signal
from .config import MODES, BernoulliMachine, FixedLine, GeometricMachine, LineConfig, Machine, MachineModel
from .line_plan import Plan, plan_of

MACHINE, CREW = "machine", "crew"
DISPATCHER = "dispatcher"

MEASURED = (
    Signal("state", "1", 0.0, 7.0, "0 running, 1 blocked, 2 starved, 3 down, 4 warming up, 5 stand-by, 6 off, 7 in "
           "service", "State"),
    Signal("parts_before", "parts", 0.0, 1e6, "parts in the emptiest buffer before it; a source's are its own room",
           "PartsBefore"),
    Signal("room_behind", "parts", 0.0, 1e6, "room in the fullest buffer behind it", "RoomBehind"),
    Signal("parts", "parts", 0.0, 1e6, "made in the last period", "PartCount"),
    Signal("blocked_pu", "pu", 0.0, 1.0, "share of the last period blocked", "BlockedTime"),
    Signal("starved_pu", "pu", 0.0, 1.0, "share of the last period starved", "StarvedTime"),
    Signal("down_pu", "pu", 0.0, 1.0, "share of the last period down or in service", "DownTime"),
    Signal("power_kw", "kW", 0.0, 1e5, "mean of the last period", "Power"),
    Signal("ready_in_slots", "slots", 0.0, 1e6, "until it is warm", "WarmUp"),
    Signal("age_slots", "slots", 0.0, 1e9, "of work since it was renewed", "OperatingTime"),
    Signal("seen_wear_pu", "pu", 0.0, 100.0, "wear at the last inspection, share of the level at which it fails",
           "Wear"),
    Signal("seen_ago_slots", "slots", 0.0, 1e9, "of work since the last inspection or renewal", "WearAge"),
    Signal("waits_for_crew", "1", 0.0, 1.0, "1 while it waits for a crew", "CrewCall"),
    Signal("price_per_kwh", "1/kWh", 0.0, 1e4, "of energy, now", "Tariff"),
)  # fmt: skip
HIDDEN = (
    Signal("finished", "parts", 0.0, 1e6, "parts that left the line by this machine in the last period"),
    Signal("energy_kwh", "kWh", 0.0, 1e9, "in the last period"),
    Signal("energy_cost", "1", 0.0, 1e9, "in the last period"),
    Signal("service_cost", "1", 0.0, 1e12, "since the reset"),
    Signal("renewals", "1", 0.0, 1e9, "since the reset"),
    Signal("failures", "1", 0.0, 1e9, "since the reset"),
    Signal("wear", "1", 0.0, 1e9, "true wear"),
    Signal("held_parts", "parts", 0.0, 1e9, "in the buffers before it"),
)
STATICS = (
    Signal("capacity_before", "parts", 0.0, 1e6, "of the smallest buffer before it, 0 for a source"),
    Signal("capacity_behind", "parts", 0.0, 1e6, "of the smallest buffer behind it, 0 for a sink"),
    Signal("efficiency_pu", "pu", 0.0, 1.0, "chance to process in a slot at full speed, in the long run"),
    Signal("idle_kw", "kW", 0.0, 1e5, "drawn while idle"),
    Signal("working_kw", "kW", 0.0, 1e5, "drawn while working at full speed"),
    Signal("off_kw", "kW", 0.0, 1e5, "drawn while off"),
    Signal("warm_up_slots", "slots", 0.0, 1e6, "from off to on"),
    Signal("place_pu", "pu", 0.0, 1.0, "place in the line, 0 the first and 1 the last"),
)
CREW_MEASURED = (
    Signal("crews_free", "1", 0.0, 1e4, "crews without work", "CrewsFree"),
    Signal("waiting", "1", 0.0, 1e4, "machines that wait for one", "Waiting"),
    Signal("spares", "parts", 0.0, 1e6, "in store; 1e6 where they are never short", "Spares"),
)
UPKEEP_MEASURED = (
    Signal("crews_free", "1", 0.0, 1e4, "crews that are free in the next slot", "CrewsFree"),
    Signal("calls", "1", 0.0, 1e4, "machines of the line that wait for a crew", "CrewCalls"),
)
"""Of machines, after the others, where any of them wears."""
UPKEEP_STATICS = (
    Signal("wear_kind", "1", 0.0, 3.0, "0 does not wear, 1 Weibull, 2 gamma process, 3 stages"),
    Signal("mean_life_slots", "slots", 0.0, 1e12, "of work, from new to failed; 0 where it does not wear"),
    Signal("wear_shape", "1", 0.0, 1e12, "of the life: Weibull's shape, or one over the square of its spread"),
    Signal("preventive_slots", "slots", 0.0, 1e6, "a preventive service takes"),
    Signal("corrective_slots", "slots", 0.0, 1e6, "a repair takes"),
)
"""Of machines, after the others, where any of them wears."""
HELD = Signal("mode_held_slots", "slots", 0.0, 1e9, "since its mode changed", "ModeHeld")
"""Of machines, where the site limits how soon a mode may change again."""
CREW_HIDDEN = (Signal("busy", "1", 0.0, 1e4, "crews at work"),)


def line_nameplate(config: LineConfig) -> Nameplate:
    """Machines with ``mode``, ``speed_pu`` and, where any of them wears, ``service``; then a dispatcher too."""
    plan = plan_of(config)
    levels = tuple(sorted(config.speeds))
    modes = tuple(float(k) for k, mode in enumerate(MODES) if mode in config.modes)
    commands = [
        Signal("mode", "1", 0.0, 2.0, "0 off, 1 stand-by, 2 on", "ModeSpt", neutral=2.0, levels=modes),
        Signal("speed_pu", "pu", 0.0, 1.0, "share of full speed", "SpeedSpt", neutral=levels[-1], levels=levels),
    ]
    groups = []
    if plan.wears:
        what = "0 none, 1 preventive, 2 inspection; nothing for a machine that does not wear"
        commands.append(Signal("service", "1", 0.0, 2.0, what, "ServiceCmd", levels=(0.0, 1.0, 2.0)))
        n = len(plan.names)
        ranks = tuple(float(k) for k in range(n + 1))
        choice = Signal("first", "1", 0.0, float(n), "the machine to serve first, from 1; 0: who came first", "First",
                        levels=ranks)  # fmt: skip
        groups = [Group(CREW, (DISPATCHER,), crew_signals(plan), (choice,), CREW_HIDDEN)]
    fixed = isinstance(config.line, FixedLine)
    values = tuple(machine_statics(config, plan, i) for i in range(len(plan.names))) if fixed else ()
    statics = STATICS + (UPKEEP_STATICS if plan.wears else ())
    machine = Group(MACHINE, plan.names, machine_signals(config, plan), tuple(commands), HIDDEN, statics, values)
    # under another name it says by a label which site it is, so that artifacts and pages find it
    labels = {} if config.name == config.kind else {"kind": config.kind}
    return Nameplate(config.name, config.dt_s, (machine, *groups), f"{len(plan.names)} machines", labels)


def machine_signals(config: LineConfig, plan: Plan) -> tuple[Signal, ...]:
    """What a machine's controller measures; every line has ``MEASURED`` first."""
    held = (HELD,) if config.limits.on_slots or config.limits.rest_slots else ()
    return MEASURED + (UPKEEP_MEASURED if plan.wears else ()) + belief_signals(plan) + held


def belief_signals(plan: Plan) -> tuple[Signal, ...]:
    """What a controller believes of damage that nobody sees, of machines with stages; the last stage is failed."""
    stages = [len(m.upkeep.wear.advance_pu) for m in plan.machines if m.upkeep and m.upkeep.wear.kind == "staged"]
    return tuple(
        Signal(f"belief_{k}_pu", "pu", 0.0, 1.0, f"chance that its damage is in stage {k}", f"Belief{k}")
        for k in range(max(stages, default=-1) + 1)
    )


def crew_signals(plan: Plan) -> tuple[Signal, ...]:
    """What the dispatcher has on its board: ``CREW_MEASURED``, then three rows with a place a machine."""
    board = []
    for k, name in enumerate(plan.names, 1):
        what = f"{name} waits for: 0 nothing, 1 preventive service, 2 repair, 3 inspection"
        board.append(Signal(f"call_{k}", "1", 0.0, 3.0, what, f"Call{k}"))
    for k, name in enumerate(plan.names, 1):
        board.append(Signal(f"waited_{k}_slots", "slots", 0.0, 1e9, f"{name} has waited", f"Waited{k}"))
    for k, name in enumerate(plan.names, 1):
        board.append(Signal(f"age_{k}_slots", "slots", 0.0, 1e9, f"{name} has worked since renewed", f"Age{k}"))
    return CREW_MEASURED + tuple(board)


def machine_statics(config: LineConfig, plan: Plan, i: int) -> tuple[float, ...]:
    """Row of machine ``i`` of a fixed line, in the order of ``STATICS``."""
    machine, power = plan.machines[i], plan.machines[i].power
    before = [c for c, to in zip(plan.capacities, plan.consumer, strict=True) if to == i]
    behind = [c for c, of in zip(plan.capacities, plan.producer, strict=True) if of == i]
    efficiency = long_run_efficiency(machine.model)
    return (
        float(min(before, default=0)), float(min(behind, default=0)), efficiency, power.idle_kw,
        power.idle_kw + power.linear_kw + power.cubic_kw, power.off_kw, float(machine.warm_up_slots),
        i / max(1, len(plan.names) - 1), *(upkeep_statics(machine) if plan.wears else ()),
    )  # fmt: skip


def upkeep_statics(machine: Machine) -> tuple[float, ...]:
    """In the order of ``UPKEEP_STATICS``."""
    upkeep = machine.upkeep
    if upkeep is None:
        return (0.0,) * len(UPKEEP_STATICS)
    life, shape = upkeep.wear.mean_life_slots, upkeep.wear.life_shape
    kind = {"weibull": 1.0, "gamma": 2.0, "staged": 3.0}[upkeep.wear.kind]
    return kind, life, shape, float(upkeep.preventive_slots), float(upkeep.corrective_slots)


def long_run_efficiency(model: MachineModel) -> float:
    """Parts a slot of a machine alone, at full speed."""
    if isinstance(model, BernoulliMachine):
        return model.efficiency_pu
    if isinstance(model, GeometricMachine):
        return model.repairs_pu / (model.repairs_pu + model.fails_pu)
    return model.rate_per_slot * model.repairs_per_slot / (model.repairs_per_slot + model.fails_per_slot)
