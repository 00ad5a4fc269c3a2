"""Does a plant keep its contract?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import TwinloopError
from ..plant import Arrays, Plant, Quality, Telemetry
from .comparison import fail, first, place, require, require_within

_CLOCK_SLACK_S = 1e-3


def check_plant(
    make_plant: Callable[[], Plant], *, periods: int = 4, tolerance: float = 1e-5, clock_slack_s: float = _CLOCK_SLACK_S
) -> None:
    """Check a plant against the contract of :class:`~twinloop.envs.plant.Plant`.

    ``make_plant()`` returns a plant that is running and may be commanded; it is closed at the end, whatever happens.
    ``periods`` is how often :meth:`advance` is called; ``tolerance`` is a share of a command's range, for plants whose
    registers are float32; ``clock_slack_s`` is how far the plant's clock may differ from the reader's.

    Raises :class:`~twinloop.envs.errors.ContractError` at the first breach, with the check, the signal and both values.
    """
    plant = make_plant()
    try:
        lacking = [name for name in vars(Plant) if not name.startswith("_") and not hasattr(plant, name)]
        require(not lacking, "declaration", f"{type(plant).__name__} lacks: {', '.join(lacking)}")
        _check_telemetry(plant, periods, clock_slack_s)
        _check_writes(plant, tolerance)
        _check_nan(plant, tolerance)
    finally:
        plant.close()
    try:
        plant.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the breach that is reported
        fail("close", f"closing twice raised {type(error).__name__}: {error}; the second time must do nothing")


def _check_telemetry(plant: Plant, periods: int, clock_slack_s: float) -> None:
    """Shapes, qualities, ranges; times not in the future and not backwards; each read counts one."""
    last: Telemetry | None = None
    copies: Telemetry | None = None
    clock_s = plant.clock_s
    for period in range(periods + 1):
        now = plant.read()
        when = f"after {period} periods"
        _require_shapes(plant, now, when)
        _require_values(plant, now, when)
        _require_not_in_future(plant, now, when, clock_slack_s)
        again = plant.read()
        require(
            again.sequence == now.sequence + 1,
            "sequence",
            f"two readings in a row are numbered {now.sequence} and {again.sequence}; it grows by one a reading",
        )
        if last is not None and copies is not None:
            _require_later(plant, last, now, when)
            for group, values in last.values.items():
                changed = first(values != copies.values[group])
                if changed is not None:
                    fail(
                        "ownership",
                        f"{place(plant.nameplate, 'measured', group, changed)} of an earlier reading changed; "
                        "return new arrays from every read",
                    )
        last = again
        copies = Telemetry(
            {g: v.copy() for g, v in again.values.items()},
            {g: v.copy() for g, v in again.source_time_s.items()},
            again.quality,
            again.received_time_s,
            again.sequence,
        )
        plant.advance()
        require(
            plant.clock_s > clock_s,
            "clock",
            f"clock_s went from {clock_s} to {plant.clock_s} over advance(); it must grow",
        )
        clock_s = plant.clock_s


def _check_writes(plant: Plant, tolerance: float) -> None:
    """What is accepted is inside the limits, whatever was asked; what was accepted once is accepted again unchanged."""
    for name, share in {"neutral": None, "minimum": 0.0, "maximum": 1.0, "far below": -10.0, "far above": 10.0}.items():
        accepted = _write(plant, _commands(plant, share), f"commands {name}")
        echo = _write(plant, accepted, f"what was accepted of commands {name}")
        for group, asked in accepted.items():
            declared = plant.nameplate.group(group)
            width = declared.upper("commanded") - declared.lower("commanded")
            different = first(np.abs(echo[group] - asked) > tolerance * width)
            if different is not None:
                name = place(plant.nameplate, "commanded", group, different)
                fail(
                    "write",
                    f"{name}: {asked[different]} was accepted and, written again, came back as "
                    f"{echo[group][different]}; what was accepted is accepted again",
                )
        plant.advance()


def _check_nan(plant: Plant, tolerance: float) -> None:
    """A NaN is refused: by an error, or by keeping what is in force."""
    in_force = _write(plant, _commands(plant, None), "commands neutral")
    for group in plant.nameplate.groups:
        if not group.commanded:
            continue
        bad = {g: v.copy() for g, v in in_force.items()}
        bad[group.name][0, 0] = np.nan
        try:
            accepted = plant.write(bad)
        except TwinloopError:
            continue
        where = place(plant.nameplate, "commanded", group.name, (0, 0))
        value, old = accepted[group.name][0, 0], in_force[group.name][0, 0]
        width = group.upper("commanded")[0] - group.lower("commanded")[0]
        require(
            bool(np.abs(value - old) <= tolerance * width),
            "NaN",
            f"{where}: NaN was written and {value} accepted, {old} was in force; raise PlantError or keep it",
        )


def _write(plant: Plant, commands: Arrays, what: str) -> dict[str, NDArray[np.float64]]:
    given = {g: v.copy() for g, v in commands.items()}
    accepted = plant.write(given)
    names = {g.name for g in plant.nameplate.groups}
    require(
        set(accepted) == names, "write", f"accepted has groups {sorted(accepted)}, the nameplate has {sorted(names)}"
    )
    for group in plant.nameplate.groups:
        values = np.asarray(accepted[group.name])
        shape = (group.n_assets, len(group.commanded))
        require(values.shape == shape, "write", f"accepted[{group.name!r}] is {values.shape}, expected {shape}")
        present = np.ones(group.n_assets, dtype=np.bool_)
        # A share of 1e-7 of the range is what a float32 register may add to a limit.
        require_within(
            "write", plant.nameplate, "commanded", group.name, values, present, when=f"accepted of {what}", slack=1e-7
        )
        changed = first(given[group.name] != commands[group.name])
        if changed is not None:
            name = place(plant.nameplate, "commanded", group.name, changed)
            fail("ownership", f"write changed the command {name} that it was given; copy before limiting")
    return {g: np.array(v, dtype=np.float64) for g, v in accepted.items()}


def _commands(plant: Plant, share: float | None) -> dict[str, NDArray[np.float64]]:
    found = {}
    for group in plant.nameplate.groups:
        lower, upper = group.lower("commanded"), group.upper("commanded")
        row = group.neutral() if share is None else lower + share * (upper - lower)
        found[group.name] = np.repeat(row[None], group.n_assets, axis=0)
    return found


def _require_shapes(plant: Plant, telemetry: Telemetry, when: str) -> None:
    parts: Mapping[str, tuple[Mapping[str, NDArray[np.generic]], np.dtype[np.generic]]] = {
        "values": (telemetry.values, np.dtype(np.float64)),
        "source_time_s": (telemetry.source_time_s, np.dtype(np.float64)),
        "quality": (telemetry.quality, np.dtype(np.int8)),
    }
    names = {g.name for g in plant.nameplate.groups}
    for part, (arrays, dtype) in parts.items():
        require(
            set(arrays) == names, "shapes", f"{part} has groups {sorted(arrays)}, the nameplate has {sorted(names)}"
        )
        for group in plant.nameplate.groups:
            array, shape = arrays[group.name], (group.n_assets, len(group.measured))
            what = f"{part}[{group.name!r}] {when}"
            require(array.shape == shape, "shapes", f"{what} is {array.shape}, expected {shape}")
            require(array.dtype == dtype, "shapes", f"{what} is {array.dtype}, expected {dtype}")


def _require_values(plant: Plant, telemetry: Telemetry, when: str) -> None:
    for group in plant.nameplate.groups:
        quality, values = telemetry.quality[group.name], telemetry.values[group.name]
        unknown = first(~np.isin(quality, [int(q) for q in Quality]))
        if unknown is not None:
            name, known = (
                place(plant.nameplate, "measured", group.name, unknown),
                [f"{int(q)} {q.name}" for q in Quality],
            )
            fail("quality", f"{name} {when} has quality {quality[unknown]}; there are {', '.join(known)}")
        lower, upper = group.lower("measured"), group.upper("measured")
        bad = first((quality == Quality.GOOD) & ~((values >= lower) & (values <= upper)))
        if bad is not None:
            signal = group.measured[bad[1]]
            name = place(plant.nameplate, "measured", group.name, bad)
            fail(
                "values",
                f"{name} {when} is {values[bad]} {signal.unit} with quality GOOD, outside [{signal.minimum}, "
                f"{signal.maximum}]; mark it BAD, or limit it as the instrument would",
            )


def _require_not_in_future(plant: Plant, telemetry: Telemetry, when: str, slack_s: float) -> None:
    require(
        telemetry.received_time_s <= plant.clock_s + slack_s,
        "times",
        f"received_time_s {telemetry.received_time_s} {when} is after the plant's clock {plant.clock_s}",
    )
    for group, times in telemetry.source_time_s.items():
        late = first(~(times <= telemetry.received_time_s + slack_s))
        if late is not None:
            name = place(plant.nameplate, "measured", group, late)
            fail(
                "times",
                f"{name} {when} was taken at {times[late]}, after it was received at {telemetry.received_time_s}",
            )


def _require_later(plant: Plant, last: Telemetry, now: Telemetry, when: str) -> None:
    require(
        now.received_time_s > last.received_time_s,
        "times",
        f"received_time_s {when} is {now.received_time_s}, a period before {last.received_time_s}; it must grow",
    )
    for group, times in now.source_time_s.items():
        back = first(times < last.source_time_s[group])
        if back is not None:
            name, earlier = place(plant.nameplate, "measured", group, back), last.source_time_s[group][back]
            fail(
                "times", f"{name} {when} was taken at {times[back]}, the reading before at {earlier}; time runs forward"
            )
