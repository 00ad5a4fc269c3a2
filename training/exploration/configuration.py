"""Configuration of an exploration, ``kind: explore``; loading it imports neither torch nor a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from ...envs.configuration import Strict, validate
from ...envs.errors import ConfigurationError, UnknownSiteError
from ...envs.registry import load_site
from ..configuration import TaskChoice
from ..tune_space import Space

Better = Literal["more", "less"]
Over = Literal["sum", "mean", "max", "min"]


class SignalObjective(Strict):
    """A measured or hidden signal, ``group/signal`` over all assets or ``group/asset/signal``, its mean over time;
    ``per`` another one's mean, such as energy per part."""

    kind: Literal["signal"] = "signal"
    signal: str
    per: str | None = None
    assets: Over = Field("sum", description="how assets of the group become one number")
    better: Better = "more"
    scale: FiniteFloat = Field(1.0, description="what the mean is multiplied by, such as 60 for parts an hour")
    unit: str = ""


class RewardObjective(Strict):
    """The task's reward a period, over assets and then over time."""

    kind: Literal["reward"] = "reward"
    assets: Over = "mean"
    better: Better = "more"
    scale: FiniteFloat = 1.0
    unit: str = ""


class CostObjective(Strict):
    """A cost of the task a period, over assets and then over time."""

    kind: Literal["cost"] = "cost"
    name: str
    assets: Over = "sum"
    better: Better = "less"
    scale: FiniteFloat = 1.0
    unit: str = ""


class PriceObjective(Strict):
    """What a prototype costs to build: ``constant`` and a price for each unit of what is in ``of``."""

    kind: Literal["price"] = "price"
    of: dict[str, FiniteFloat] = Field(min_length=1)
    constant: FiniteFloat = 0.0
    better: Better = "less"
    unit: str = ""


Objective = Annotated[SignalObjective | RewardObjective | CostObjective | PriceObjective, Field(discriminator="kind")]


class Limit(Strict):
    """What may be built: a weighted sum of what is chosen within bounds."""

    sum: dict[str, FiniteFloat] = Field(min_length=1)
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _bounds(self) -> Limit:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} exceeds at_most {self.at_most:g}")
        return self


class SampleSearch(Strict):
    """Points all over the space: pseudo-random, or Sobol's (scrambled, Owen 1998), which leave no large gap."""

    kind: Literal["random", "sobol"] = "sobol"
    prototypes: PositiveInt = 4096


class CmaSearch(Strict):
    """CMA-ES (Hansen & Ostermeier 2001), many instances side by side on the batch axis, each with weights of its own
    for the objectives (augmented Chebyshev), so that together they reach along the front; extra ``explore``."""

    kind: Literal["cma"] = "cma"
    instances: PositiveInt = 8
    population: int = Field(32, ge=4)
    generations: PositiveInt = 20
    sigma: PositiveFloat = Field(0.3, le=1, description="first step, share of each range")


class OptunaSearch(Strict):
    """Optuna's samplers, for spaces that mix numbers and choices; extra ``explore``."""

    kind: Literal["optuna"] = "optuna"
    sampler: Literal["tpe", "nsga2"] = "tpe"
    population: PositiveInt = Field(64, description="prototypes asked for, and run, at a time")
    generations: PositiveInt = 8


Search = Annotated[SampleSearch | CmaSearch | OptunaSearch, Field(discriminator="kind")]


class Round(Strict):
    """How long and often each prototype runs. Every prototype of a round meets the same seeds, each round new ones."""

    periods: PositiveInt
    warm_up_periods: NonNegativeInt = Field(0, description="before them, not counted")
    seeds: PositiveInt = 1
    keep: PositiveInt | None = Field(None, description="how many go on to the next round; none after the last")


class Verification(Strict):
    """The best on the site's plant, and the site as it is."""

    best: PositiveInt = 3
    plant: dict[str, Any] = Field(default_factory=dict, description="the site's plant configuration")
    periods: PositiveInt = 200
    warm_up_periods: NonNegativeInt = 0
    seeds: PositiveInt = 3


class ExploreConfiguration(Strict):
    """One exploration. ``ranges``: a parameter of the twin's prototypes, or a command to be held
    (``machine/M2/speed_pu``), and its values as in ``twinloop tune``: ``{randint: [1, 10]}``, ``{uniform: [0, 1]}``,
    ``{loguniform: [1, 100]}``, ``{choice: [0.6, 1.0]}``, numbers with ``step`` as well."""

    kind: Literal["explore"] = "explore"
    name: str = Field("explore", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    site: SerializeAsAny[BaseModel]
    task: TaskChoice | None = Field(None, description="for objectives of kinds reward and cost")
    policy: Literal["neutral"] = Field("neutral", description="what all assets are commanded")
    commands: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="held instead: group/signal of all assets, or group/asset/signal"
    )
    ranges: dict[str, Any] = Field(min_length=1)
    limits: tuple[Limit, ...] = ()
    objectives: dict[str, Objective] = Field(min_length=1)
    search: Search = SampleSearch()
    rounds: tuple[Round, ...] = Field(min_length=1)
    verify: Verification | None = None
    seed: NonNegativeInt = 0
    replicas: PositiveInt = Field(4096, description="width of the batch")
    workers: NonNegativeInt = Field(0, description="processes; 0: this one")
    ray_address: str | None = Field(
        None, description="a Ray cluster (auto, host:port) on which the workers run; absent: this machine, without Ray"
    )
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"

    @field_validator("site", mode="before")
    @classmethod
    def _site(cls, value: object) -> BaseModel:
        if isinstance(value, BaseModel):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError("needs a mapping with a kind, such as {kind: production_line}; see `twinloop sites`")
        try:
            site = load_site(value["kind"])
        except UnknownSiteError as error:
            raise ValueError(str(error)) from error
        return site.config_model.model_validate(dict(value))

    @field_validator("ranges")
    @classmethod
    def _ranges(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            space = Space.of(value, "ranges")
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        for name, domain in space.domains.items():
            bad = [c for c in domain.choices if isinstance(c, bool) or not isinstance(c, int | float)]
            if bad:
                raise ValueError(f"{name}: choice {bad[0]!r}; parameters and commands are numbers")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> ExploreConfiguration:
        for number, one in enumerate(self.rounds):
            last = number == len(self.rounds) - 1
            if (one.keep is None) != last:
                told = "the last round keeps what it has: leave keep out" if last else "say how many go on: keep"
                raise ValueError(f"rounds[{number}]: {told}")
        needs = [name for name, o in self.objectives.items() if o.kind in ("reward", "cost")]
        if needs and self.task is None:
            raise ValueError(f"objectives.{needs[0]}: kind {self.objectives[needs[0]].kind} needs a task")
        if self.task is not None and not needs:
            raise ValueError("task: no objective is of kind reward or cost; leave it out")
        if self.ray_address is not None and not self.workers:
            raise ValueError("ray_address: needs workers above 0")
        for where, names in (
            *((f"limits[{k}].sum", limit.sum) for k, limit in enumerate(self.limits)),
            *((f"objectives.{n}.of", o.of) for n, o in self.objectives.items() if o.kind == "price"),
        ):
            unknown = [name for name in names if name not in self.ranges]
            if unknown:
                raise ValueError(f"{where}: {unknown[0]!r} is not in ranges, which has {', '.join(self.ranges)}")
        both = [name for name in self.commands if name in self.ranges]
        if both:
            raise ValueError(f"commands: {both[0]} is in ranges too; give it in one place")
        return self

    @property
    def site_kind(self) -> str:
        """Name of the site."""
        return str(getattr(self.site, "kind", ""))

    def plant_config(self) -> BaseModel:
        """Of the plant on which the best are verified; raises :class:`ConfigurationError`."""
        told = self.verify.plant if self.verify else {}
        return validate(told, load_site(self.site_kind).plant_config_model, "verify.plant")
