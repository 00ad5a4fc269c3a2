"""Wear, failure and service of machines: who has failed, who is waited for, what a crew does.

A machine that has failed waits for a crew; one that is to be serviced works on until a crew comes. Work locks the
machine out and renews it (an inspection only looks). All arrays ``[M, L]`` unless said otherwise.
"""

from __future__ import annotations

import torch

from .. import noise
from .config import GammaWear, LineConfig, WeibullWear
from .crew import crews_given, spares_taken
from .gamma_table import GammaTable
from .line_plan import Plan
from .staged import Stages

Tensor = torch.Tensor
State = dict[str, Tensor]

_LASTS_STREAM = 45
NOTHING, PREVENTIVE, CORRECTIVE, INSPECTION = range(4)
"""What a machine waits for, or what is done to it; the first three after 0 are also what may be asked for, save
``CORRECTIVE``, which failures ask for."""


class Upkeep:
    """The rules for a plan in which at least one machine wears."""

    def __init__(self, config: LineConfig, plan: Plan, device: torch.device) -> None:
        self._service = config.service
        self._device = device
        wears = [m.upkeep is not None for m in plan.machines]
        self.wears = torch.tensor(wears, device=device)[:, None]

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

        kept = [m.upkeep for m in plan.machines]
        self._slots = {
            PREVENTIVE: column([k.preventive_slots if k else 1 for k in kept]),
            CORRECTIVE: column([k.corrective_slots if k else 1 for k in kept]),
            INSPECTION: column([k.inspection_slots if k else 0 for k in kept]),
        }
        self._costs = {
            PREVENTIVE: column([k.preventive_cost if k else 0.0 for k in kept]),
            CORRECTIVE: column([k.corrective_cost if k else 0.0 for k in kept]),
            INSPECTION: column([k.inspection_cost if k else 0.0 for k in kept]),
        }
        weibull = [k.wear if k and isinstance(k.wear, WeibullWear) else None for k in kept]
        self._ages = torch.tensor([w is not None for w in weibull], device=device)[:, None]
        self._shape = column([w.shape if w else 1.0 for w in weibull])
        self._scale = column([w.scale_slots if w else 1.0 for w in weibull])
        gamma = [k.wear if k and isinstance(k.wear, GammaWear) else None for k in kept]
        self._tables = [
            (i, GammaTable(g.shape_per_slot, g.scale, device), g.failure_level) for i, g in enumerate(gamma) if g
        ]
        self.stages = Stages.of(plan.machines, device)
        """Damage in stages, None where no machine has any."""
        watched = [bool(g and g.monitored) for g in gamma]
        self._watched = torch.tensor(watched, device=device)[:, None] if any(watched) else None

    def fresh(self, n: int, lanes: int) -> State:
        """New machines, nobody waiting, all crews free and all spares there."""

        def zeros(dtype: torch.dtype) -> Tensor:
            return torch.zeros(n, lanes, dtype=dtype, device=self._device)

        spares = self._service.spares or 0
        return (self.stages.fresh(n, lanes) if self.stages else {}) | {
            "age": zeros(torch.float64),
            "wear": zeros(torch.float64),
            "pace": torch.ones(n, lanes, dtype=torch.float64, device=self._device),
            "lasts": torch.ones(n, lanes, dtype=torch.float64, device=self._device),
            "seen_wear": zeros(torch.float64),
            "seen_age": zeros(torch.float64),
            "failed": zeros(torch.bool),
            "wants": zeros(torch.int64),
            "since": zeros(torch.int64),
            "left": zeros(torch.int64),
            "doing": zeros(torch.int64),
            "crews": torch.full((lanes,), self._service.crews, dtype=torch.int64, device=self._device),
            "due": torch.zeros(spares, lanes, dtype=torch.int64, device=self._device),
            "service_cost": zeros(torch.float64),
            "renewals": zeros(torch.float64),
            "failures": zeros(torch.float64),
        }

    def ask(self, s: State, service: Tensor, now: Tensor) -> State:
        """Take over what is asked: 0 nothing, 1 preventive service, 2 an inspection; ``now`` ``[L]`` slots."""
        known = s["failed"] & ~s["silent"] if self.stages else s["failed"]
        open_to = self.wears & ~known & (s["doing"] == NOTHING)
        asked = torch.where(service >= 1.5, INSPECTION, torch.where(service >= 0.5, PREVENTIVE, NOTHING))
        wants = torch.where(open_to, asked, s["wants"])
        begins = open_to & (wants != NOTHING) & (s["wants"] == NOTHING)
        return s | {"wants": wants, "since": torch.where(begins, now, s["since"])}

    def assign(self, s: State, first: Tensor, now: Tensor, seeds: Tensor) -> State:
        """Send free crews to waiting machines; ``first`` ``[L]``: the dispatcher's choice, from 1, 0 for none.

        Work takes ``lasts`` times the declared slots, up or down to whole ones by a draw that keeps the mean.
        """
        waiting = (s["wants"] != NOTHING) & (s["doing"] == NOTHING)
        if not waiting.any():
            return s
        free = s["crews"] - (s["doing"] != NOTHING).sum(0)
        renews = s["wants"] != INSPECTION
        endless = self._service.spares is None
        stock = torch.full_like(now, waiting.shape[0]) if endless else (s["due"] <= now).sum(0)
        given = crews_given(waiting, s["since"], renews, free, stock, first)
        kind = s["wants"]
        if self.stages:  # who comes to service a machine that has failed unnoticed repairs it
            kind = torch.where((kind == PREVENTIVE) & s["failed"], CORRECTIVE, kind)
        left, cost = (_of_kind(kind, table) for table in (self._slots, self._costs))
        left = left * s["lasts"]
        if (left != left.floor()).any():
            left = (left + noise.uniform(seeds, now, _LASTS_STREAM, len(left), torch.float64).T).floor()
        after = s | {
            "doing": torch.where(given, kind, s["doing"]),
            "left": torch.where(given, left.to(torch.int64), s["left"]),
            "service_cost": s["service_cost"] + torch.where(given, cost, 0.0),
        }
        if not endless:
            after["due"] = spares_taken(s["due"], now, (given & renews).sum(0), self._service.spare_lead_slots)
        return self._finished(after)  # an inspection may take no time

    def work(self, s: State) -> State:
        """Crews work for a slot; who is done is as new, or known."""
        busy = s["doing"] != NOTHING
        if not busy.any():
            return s
        return self._finished(s | {"left": torch.where(busy, s["left"] - 1, s["left"])})

    def _finished(self, s: State) -> State:
        done = (s["doing"] != NOTHING) & (s["left"] <= 0)
        if not done.any():
            return s
        renewed = done & (s["doing"] != INSPECTION)
        age, wear = torch.where(renewed, 0.0, s["age"]), torch.where(renewed, 0.0, s["wear"])
        after = s | {
            "age": age,
            "wear": wear,
            "seen_wear": torch.where(done, wear, s["seen_wear"]),
            "seen_age": torch.where(done, age, s["seen_age"]),
            "failed": s["failed"] & ~renewed,
            "wants": torch.where(done, NOTHING, s["wants"]),
            "doing": torch.where(done, NOTHING, s["doing"]),
            "renewals": s["renewals"] + renewed,
        }
        return after if self.stages is None else self._looked(after, done & ~renewed, renewed)

    def _looked(self, s: State, looked: Tensor, renewed: Tensor) -> State:
        """What inspections have shown of damage in stages; a failure that they find calls a crew."""
        stages = self.stages
        assert stages is not None  # only lines with stages come here
        shown = looked & stages.is_staged
        seen = torch.where(shown, stages.seen(s["wear"], s["look"]), s["seen_wear"])
        belief = torch.where(shown, stages.weighed(s["belief"], seen), s["belief"])
        found = looked & s["silent"]
        return s | {
            "seen_wear": seen,
            "belief": stages.certain(belief, 0, renewed),
            "silent": s["silent"] & ~found & ~renewed,
            "wants": torch.where(found, CORRECTIVE, s["wants"]),
            "since": torch.where(found, s["slot"], s["since"]),
        }

    def use(self, s: State, worked: Tensor, u: Tensor, now: Tensor) -> State:
        """A slot of work wears the machines that ``worked``; ``u``: uniforms. Failures wait for a crew from ``now``."""
        before = s["age"]
        age = before + worked
        # P(fails by a + 1 | has not by a) of a Weibull life, which runs ``pace`` times as fast as is declared
        scale = self._scale / s["pace"]
        hazard = -torch.expm1((before / scale) ** self._shape - (age / scale) ** self._shape)
        fails = self._ages & (u[: len(worked)] < hazard)
        wear = s["wear"]
        for i, table, level in self._tables:
            grown = wear[i] + torch.where(worked[i], table.draw(u[i]) * s["pace"][i], 0.0)
            wear = wear.index_copy(0, torch.tensor([i], device=wear.device), grown[None])
            fails = fails.index_copy(0, torch.tensor([i], device=wear.device), (grown >= level)[None])
        if self.stages:
            wear, beyond = self.stages.grown(wear, worked & ~s["failed"], u[: len(worked)])
            fails = fails | beyond
        new = fails & worked & self.wears & ~s["failed"]
        calls, seen = new, {}
        if self.stages:
            calls = new & self.stages.announces
            paid = torch.where(worked & s["silent"], self.stages.unnoticed_cost, 0.0)
            seen = {
                "belief": self.stages.believed(s["belief"], worked),
                "silent": s["silent"] | (new & ~self.stages.announces),
                "look": u[len(worked) :],
                "service_cost": s["service_cost"] + paid,
            }
        if self._watched is not None:
            seen |= {
                "seen_wear": torch.where(self._watched, wear, s["seen_wear"]),
                "seen_age": torch.where(self._watched, age, s["seen_age"]),
            }
        return (
            s
            | seen
            | {
                "age": age,
                "wear": wear,
                "failed": s["failed"] | new,
                "wants": torch.where(calls, CORRECTIVE, s["wants"]),
                "since": torch.where(calls, now, s["since"]),
                "failures": s["failures"] + new,
            }
        )

    @staticmethod
    def stops(s: State) -> Tensor:
        """Who cannot work: failed, or in a crew's hands."""
        failed = s["failed"] & ~s["silent"] if "silent" in s else s["failed"]
        return failed | (s["doing"] != NOTHING)


def _of_kind(kind: Tensor, table: dict[int, Tensor]) -> Tensor:
    """``[M, L]``: each machine's entry of the table for the kind of work that it wants, 0 for nothing."""
    found = torch.zeros(kind.shape, dtype=torch.float64, device=kind.device)
    for name, values in table.items():
        found = torch.where(kind == name, values, found)
    return found
