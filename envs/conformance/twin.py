"""Does a batched twin keep its contract?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch

from ..errors import ContractError, nearest
from ..nameplate import Nameplate
from ..twin import Readings, Twin
from .case import TwinCase
from .comparison import KINDS, copy_of, fail, first, place, require, require_same, require_within, tensors
from .excitation import constant_commands
from .parameters import check_parameters
from .snapshots import check_snapshot
from .trajectories import check_batch, check_determinism, check_partial_resets


def check_twin(
    make_twin: Callable[[int], Twin],
    *,
    steps: int = 12,
    seeds: Sequence[int] = (11, 3, 2**40 + 5, 0, 77),
    batch_sizes: Sequence[int] = (2, 3, 8, 33),
    checks: Sequence[str] | None = None,
) -> None:
    """Check a twin against the contract of :class:`~twinloop.envs.twin.Twin`.

    ``make_twin(n)`` returns a new twin of the same site with ``n`` replicas. ``steps`` is how long the compared
    trajectories are, ``seeds`` are the episodes, ``batch_sizes`` the batches whose rows must equal those seeds run
    alone, and ``checks`` picks from :data:`TWIN_CHECKS` (all when None).

    Raises :class:`~twinloop.envs.errors.ContractError` at the first breach, with the check, the signal, the replica and
    both values.
    """
    case = TwinCase(make_twin, steps, tuple(seeds), tuple(batch_sizes))
    for name in TWIN_CHECKS if checks is None else checks:
        if name not in TWIN_CHECKS:
            raise ContractError(f"no check {name!r}; there are {', '.join(TWIN_CHECKS)}{nearest(name, TWIN_CHECKS)}")
        TWIN_CHECKS[name](case)


def check_declaration(case: TwinCase) -> None:
    """The twin has the contract's attributes, and as many replicas as were asked for."""
    for n in (1, max(case.batch_sizes)):
        twin = case.make_twin(n)
        require(isinstance(twin, Twin), "declaration", f"{type(twin).__name__} lacks: {', '.join(_lacking(twin))}")
        require(twin.n_replicas == n, "declaration", f"asked for {n} replicas, n_replicas says {twin.n_replicas}")
        require(
            math.isfinite(twin.dt_s) and twin.dt_s > 0,
            "declaration",
            f"dt_s {twin.dt_s} must be a positive number of seconds",
        )
        require(
            twin.dtype in (torch.float32, torch.float64), "declaration", f"dtype {twin.dtype} is not float32 or float64"
        )


def check_shapes(case: TwinCase) -> None:
    """Readings have the nameplate's groups, their shapes, the twin's dtype and device; time counts ``dt_s``."""
    for n in (1, 3):
        twin = case.make_twin(n)
        seeds = case.seed_tensor(twin)
        _require_shapes(twin, twin.reset(seeds), "after reset", 0)
        for step in range(2):
            readings = twin.step(case.commands(twin, seeds, step))
            _require_shapes(twin, readings, f"after step {step + 1}", step + 1)


def check_values(case: TwinCase) -> None:
    """Random legal commands: every value finite, and of present assets inside the nameplate's ranges."""
    twin = case.make_twin(3)
    seeds = case.seed_tensor(twin)
    _require_values("values", twin, twin.reset(seeds), "after reset")
    for step in range(case.steps):
        _require_values("values", twin, twin.step(case.commands(twin, seeds, step)), f"after step {step + 1}")


def check_extremes(case: TwinCase) -> None:
    """Commands held at either limit, or swinging between them."""
    for name, shares in {"minimum": (0.0,), "maximum": (1.0,), "swinging": (0.0, 1.0)}.items():
        _drive("extremes", case, name, shares)


def check_beyond_limits(case: TwinCase) -> None:
    """Commands far outside the nameplate's ranges are limited as the equipment would; nothing breaks."""
    for name, shares in {"far below": (-10.0,), "far above": (10.0,), "swinging beyond": (-10.0, 10.0)}.items():
        _drive("beyond limits", case, name, shares)


def check_present(case: TwinCase) -> None:
    """Each replica has an asset; who is present changes at resets alone; commands to empty slots move nobody."""
    n = max(case.batch_sizes)
    twin, other = case.make_twin(n), case.make_twin(n)
    seeds = case.seed_tensor(twin)
    start = copy_of(twin.reset(seeds))
    other.reset(seeds)
    names = list(start.present)
    empty = first(~torch.cat([start.present[g] for g in names], dim=1).any(dim=1).cpu())
    if empty is not None:
        fail("present", f"replica {empty[0]} has no asset at all after reset")
    for step in range(case.steps):
        commands = case.commands(twin, seeds, step)
        a = twin.step(commands)
        # Absent slots of the second twin get the opposite end of the range.
        opposite = constant_commands(twin.nameplate, n, float(step % 2), twin.dtype, twin.device)
        b = other.step({g: torch.where(start.present[g][..., None], commands[g], opposite[g]) for g in names})
        for group in names:
            where = first((a.present[group] != start.present[group]).cpu())
            if where is not None:
                fail(
                    "present",
                    f"{place(twin.nameplate, 'present', group, where[1:])} of replica {where[0]} went from "
                    f"{start.present[group][where].item()} at reset to {a.present[group][where].item()} after step "
                    f"{step + 1}; presence is fixed for an episode, an outage belongs in a measured signal",
                )
        require_same(
            "present",
            twin.nameplate,
            _present_only(a),
            _present_only(b),
            when=f"after step {step + 1}",
            got_is="with one command to the absent slots",
            want_is="with another",
            why="a slot without an asset must not influence the others",
        )


def check_ownership(case: TwinCase) -> None:
    """What was returned is never changed by a later call, and what was given is never changed at all."""
    twin = case.make_twin(3)
    seeds = case.seed_tensor(twin)
    rows = torch.tensor([2, 0], device=twin.device)
    given = seeds.clone()
    held = twin.reset(given)
    require(
        torch.equal(given, seeds), "ownership", f"reset changed its seeds from {seeds.tolist()} to {given.tolist()}"
    )
    for step in range(3):
        before = copy_of(held)
        commands = case.commands(twin, seeds, step)
        copies = {g: c.clone() for g, c in commands.items()}
        after = twin.step(commands)
        for group, command in commands.items():
            where = first((command != copies[group]).cpu())
            if where is not None:
                name = place(twin.nameplate, "commanded", group, where[1:])
                fail(
                    "ownership",
                    f"step changed the command {name} of replica {where[0]} that it was given from "
                    f"{copies[group][where].item()} to {command[where].item()}; copy before limiting",
                )
        _require_untouched(twin.nameplate, held, before, f"after step {step + 1}")
        kept = copy_of(after)
        held = twin.reset(seeds[rows], rows)
        _require_untouched(twin.nameplate, after, kept, "after a partial reset")


def _require_untouched(nameplate: Nameplate, held: Readings, copy: Readings, when: str) -> None:
    require_same(
        "ownership",
        nameplate,
        held,
        copy,
        when=when,
        got_is="readings returned earlier now say",
        want_is="they said",
        why="return new tensors from every call, callers keep them",
    )


def _require_shapes(twin: Twin, readings: Readings, when: str, step: int) -> None:
    n, check = twin.n_replicas, "shapes"
    for kind in KINDS:
        found = getattr(readings, kind)
        names = [g.name for g in twin.nameplate.groups]
        require(
            set(found) == set(names),
            check,
            f"{kind} {when} has groups {sorted(found)}, the nameplate has {sorted(names)}",
        )
        for group in twin.nameplate.groups:
            tensor = found[group.name]
            shape = (n, group.n_assets) if kind == "present" else (n, group.n_assets, len(getattr(group, kind)))
            dtype = torch.bool if kind == "present" else twin.dtype
            what = f"{kind}[{group.name!r}] {when}"
            require(tuple(tensor.shape) == shape, check, f"{what} is {tuple(tensor.shape)}, expected {shape}")
            require(tensor.dtype == dtype, check, f"{what} is {tensor.dtype}, expected {dtype}")
            require(
                tensor.device.type == twin.device.type,
                check,
                f"{what} is on {tensor.device}, the twin on {twin.device}",
            )
    require(
        tuple(readings.time_s.shape) == (n,), check, f"time_s {when} is {tuple(readings.time_s.shape)}, expected {(n,)}"
    )
    wrong = first((readings.time_s.double().cpu() - step * twin.dt_s).abs() > 1e-4 * twin.dt_s)
    if wrong is not None:
        fail(
            check,
            f"time_s of replica {wrong[0]} {when} is {readings.time_s[wrong].item()}, not {step} times {twin.dt_s}",
        )


def _require_values(check: str, twin: Twin, readings: Readings, when: str) -> None:
    for kind, group, tensor in tensors(readings):
        if kind == "present":
            continue
        present = readings.present[group].cpu().numpy()
        require_within(check, twin.nameplate, kind, group, tensor.detach().cpu().numpy(), present, when=when)


def _drive(check: str, case: TwinCase, name: str, shares: tuple[float, ...]) -> None:
    twin = case.make_twin(2)
    twin.reset(case.seed_tensor(twin))
    for step in range(case.steps):
        share = shares[step % len(shares)]
        readings = twin.step(constant_commands(twin.nameplate, 2, share, twin.dtype, twin.device))
        _require_values(check, twin, readings, f"after step {step + 1} with commands {name}")


def _present_only(readings: Readings) -> Readings:
    """The same readings with zeros where there is no asset."""
    kinds = {
        kind: {
            g: t if kind == "present" else t * readings.present[g][..., None]
            for g, t in getattr(readings, kind).items()
        }
        for kind in KINDS
    }
    return Readings(**kinds, time_s=readings.time_s)


def _lacking(twin: object) -> list[str]:
    public = [name for name in vars(Twin) if not name.startswith("_")]
    return [name for name in public if not hasattr(twin, name)]


TWIN_CHECKS: Mapping[str, Callable[[TwinCase], None]] = MappingProxyType(
    {
        "declaration": check_declaration,
        "shapes": check_shapes,
        "values": check_values,
        "extremes": check_extremes,
        "beyond limits": check_beyond_limits,
        "present": check_present,
        "ownership": check_ownership,
        "determinism": check_determinism,
        "batch": check_batch,
        "partial resets": check_partial_resets,
        "snapshot": check_snapshot,
        "parameters": check_parameters,
    }
)
"""Every check of :func:`check_twin` by name, in the order in which they run."""
