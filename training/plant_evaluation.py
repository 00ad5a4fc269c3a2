"""The policy that is being trained, on the site's plant as deployment runs it: exported, behind shield and runtime.

Figures, over all plant seeds: ``plant/gain`` energy over that of neutral commands in the same wind, less one;
``plant/energy_kwh`` a period; ``plant/interventions`` of the shield, ``plant/fallback`` and ``plant/substituted``
periods, a period. Without a meter (``energy_kwh`` of the plant, or measured ``power_kw``) the first two are absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..agents.artifact import Scope, load_artifact
from ..agents.controllers import NeutralPolicy
from ..envs.configuration import validate
from ..envs.constraint import declaration_of_site
from ..envs.errors import ConfigurationError
from ..envs.nameplate import Nameplate
from ..envs.plant import Plant
from ..envs.plant_file import plant_of
from ..envs.registry import Site
from .evaluation import Metered, drive
from .problem import Problem
from .run_settings import PLANT_GAIN, PlantEvaluationConfiguration

if TYPE_CHECKING:
    from ..agents.policy import Policy
    from .configuration import TrainConfiguration

WHERE = "evaluation.plant"
REFERENCE_FILE = "plant_reference.json"


@dataclass(frozen=True)
class Drive:
    """One policy on one plant seed; ``energy_kwh`` is None without a meter."""

    energy_kwh: float | None
    interventions: int
    fallback_periods: int
    substituted_periods: int


class PlantEvaluation:
    """Evaluations on the plant that a configuration names.

    Neutral commands are run once; what they gave is kept in ``folder``, so that a resumed run does not repeat it.
    """

    def __init__(
        self, settings: PlantEvaluationConfiguration, site: Site, site_config: BaseModel, plant_config: BaseModel,
        folder: Path,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._site = site
        self._site_config, self._plant_config = site_config, plant_config
        self._folder = folder
        self._neutral: list[Drive] = []

    @staticmethod
    def of(config: TrainConfiguration, problem: Problem, folder: Path) -> PlantEvaluation | None:
        """The evaluations of a run, None where it has none; raises :class:`ConfigurationError` for a wrong plant."""
        settings = config.evaluation.plant
        if settings is None:
            return None
        if settings.site is None:
            site, site_config = problem.site, problem.site_config
            plant_config = validate(settings.plant, site.plant_config_model, f"{WHERE}.plant")
        else:
            site, site_config, plant_config = plant_of({"site": settings.site, "plant": settings.plant}, WHERE)
        if settings.seeds != (0,) and "seed" not in type(plant_config).model_fields:
            raise ConfigurationError(f"{WHERE}.seeds: the plant of site {site.name!r} has no seed; leave seeds out")
        return PlantEvaluation(settings, site, site_config, plant_config, folder)

    def check(self, learnt: Nameplate, scope: Scope, judge: str) -> None:
        """Raise for a plant that cannot be made or that the policy would not serve, before a run begins."""
        with closing(self._plant(self._settings.seeds[0])) as plant:
            plate = plant.nameplate
            by_interface = scope == "interface"
            if learnt.interface_hash != plate.interface_hash if by_interface else learnt.hash != plate.hash:
                differences = learnt.differences(plate, interface_only=by_interface)
                told = "; ".join(differences) or "descriptions, tags or hidden signals only"
                raise ConfigurationError(
                    f"{WHERE}: the policy learns for {learnt.site!r} (here) with scope {scope}, the plant is "
                    f"{plate.site!r} (there); they differ in: {told}; give the plant of this site"
                    + ("" if by_interface else ", or set scope: interface where only signals must agree")
                )
            if judge == PLANT_GAIN and not _is_metered(plant):
                raise ConfigurationError(
                    f"evaluation.judge: {PLANT_GAIN!r} needs energy, and the plant of site {self._site.name!r} has "
                    "neither energy_kwh nor a measured power_kw; take 'evaluation/reward'"
                )

    def is_due(self, iteration: int) -> bool:
        """Whether an evaluation follows this iteration."""
        return iteration % self._settings.every == 0

    def evaluate(self, artifact: Path) -> dict[str, float]:
        """Run an artifact on all plant seeds; raises KeyboardInterrupt after Ctrl-C, PlantError for a lost plant."""
        ours = [self._drive(lambda plate: load_artifact(artifact, plate), seed) for seed in self._settings.seeds]
        n = len(ours) * self._settings.periods
        figures = {
            "plant/interventions": sum(d.interventions for d in ours) / n,
            "plant/fallback": sum(d.fallback_periods for d in ours) / n,
            "plant/substituted": sum(d.substituted_periods for d in ours) / n,
        }
        energy = [d.energy_kwh for d in ours if d.energy_kwh is not None]
        if energy:
            neutral = sum(d.energy_kwh or 0.0 for d in self._reference())
            figures["plant/energy_kwh"] = sum(energy) / n
            if neutral > 0.0:
                figures[PLANT_GAIN] = sum(energy) / neutral - 1.0
        return figures

    def _reference(self) -> list[Drive]:
        """Neutral commands on all plant seeds."""
        file = self._folder / REFERENCE_FILE
        if not self._neutral and file.is_file():
            self._neutral = [Drive(**told) for told in json.loads(file.read_text(encoding="utf-8"))]
        if not self._neutral:
            self._neutral = [self._drive(NeutralPolicy, seed) for seed in self._settings.seeds]
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([asdict(d) for d in self._neutral]) + "\n", encoding="utf-8")
            partial.replace(file)
        return self._neutral

    def _drive(self, make: Callable[[Nameplate], Policy], seed: int) -> Drive:
        source = self._plant(seed)
        plant = Metered(source)
        with closing(plant):
            policy = make(plant.nameplate)
            declaration = declaration_of_site(self._site, self._site_config)
            summary = drive(plant, policy, self._settings.periods, f"{policy.name}, plant seed {seed},", declaration)
        return Drive(
            sum(plant.energy_kwh[: self._settings.periods]) if _is_metered(source) else None,
            sum(summary.interventions.values()),
            summary.fallback_periods,
            summary.substituted_periods,
        )

    def _plant(self, seed: int) -> Plant:
        config = self._plant_config
        if "seed" in type(config).model_fields:
            config = config.model_copy(update={"seed": seed})
        return self._site.plant(self._site_config, config)


def _is_metered(plant: Plant) -> bool:
    measured = (signal.name for group in plant.nameplate.groups for signal in group.measured)
    return getattr(plant, "energy_kwh", None) is not None or "power_kw" in measured
