"""What is to be learnt: a site, a task and how assets see, ready to be built in any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from ..agents.action_layout import ActionLayout
from ..agents.own_signals import OwnSignalsEncoder
from ..envs.constraint import constraints_of_site, declaration_of_site
from ..envs.encoder import BlendingEncoder, Encoder
from ..envs.errors import ConfigurationError, ContractError, nearest
from ..envs.nameplate import Nameplate
from ..envs.registry import Site, load_site
from .rollout_settings import ShieldedConfiguration

if TYPE_CHECKING:
    from ..envs.task import Task
    from ..envs.twin import Twin
    from .configuration import TrainConfiguration
    from .shielding import Shielding
    from .watched_twin import Charges


@dataclass(frozen=True)
class Problem:
    """A picklable recipe: every process builds its own twin, task and encoders from it."""

    site: Site
    site_config: BaseModel
    task_name: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    encoder_name: str | None = None
    encoder_settings: Mapping[str, Any] = field(default_factory=dict)
    controlled: Mapping[str, tuple[str, ...]] | None = None
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    shield: ShieldedConfiguration | None = None
    blend: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    constraint_prices: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(config: TrainConfiguration, site: Site | None = None) -> Problem:
        """The problem of a run; ``site`` replaces the registry's."""
        return Problem(
            site=site or load_site(getattr(config.site, "kind", "")),
            site_config=config.site,
            task_name=config.task.name,
            task_options=config.task.options,
            encoder_name=config.encoder.name if config.encoder else None,
            encoder_settings=config.encoder.settings if config.encoder else {},
            controlled=config.learner.controlled,
            dtype=config.dtype,
            device=config.device,
            shield=config.shield,
            blend=getattr(config.learner, "blend", None) or {},  # learners that weigh no motions have no such setting
            constraint_prices=config.constraint_prices,
        )

    def nameplate(self) -> Nameplate:
        return self.site.nameplate(self.site_config)

    @property
    def twin_keeps_constraints(self) -> bool:
        """Whether the site's twin is safe by itself: then nobody watches it, and its places may be such as no shield
        knows limits for."""
        keeps = getattr(self.site, "twin_keeps_constraints", None)
        return keeps is not None and bool(keeps(self.site_config))

    def twin(self, n_replicas: int) -> Twin:
        """The site's twin, watched where the site adds constraints, behind the shield where the run wants it."""
        import torch

        twin = self.site.twin(self.site_config, n_replicas, self.device, getattr(torch, self.dtype))
        if not self.twin_keeps_constraints and constraints_of_site(self.site, self.site_config):
            from .watched_twin import WatchedTwin

            twin = WatchedTwin(twin, declaration_of_site(self.site, self.site_config))
        if self.shield is None:
            return twin
        from ..deploy.shield import Shield
        from .shielded_twin import ShieldedTwin

        return ShieldedTwin(twin, Shield(declaration_of_site(self.site, self.site_config)))

    def shielding(self, twin: Twin) -> Shielding | None:
        """Who asks a shielded twin of :meth:`twin` what was obeyed; None without a shield."""
        if self.shield is None:
            return None
        from .shielded_twin import ShieldedTwin
        from .shielding import Shielding

        if not isinstance(twin, ShieldedTwin):
            raise ContractError(f"a problem with a shield needs a ShieldedTwin, not a {type(twin).__name__}")
        return Shielding(twin, self.shield.intervention_penalty)

    def charges(self, twin: Twin) -> Charges | None:
        """Who counts and prices the constraints that a twin of :meth:`twin` breaks; None where the site adds none."""
        from .watched_twin import Charges, WatchedTwin

        watched = twin
        if self.shield is not None:
            from .shielded_twin import ShieldedTwin

            watched = twin.inner if isinstance(twin, ShieldedTwin) else twin
        return Charges(watched, self.constraint_prices) if isinstance(watched, WatchedTwin) else None

    def task(self) -> Task:
        return self.site.task(self.task_name, self.site_config, self.task_options)

    def layouts(self, nameplate: Nameplate) -> dict[str, ActionLayout]:
        """What the learner decides in each group that learns; raises ConfigurationError for unknown names."""
        return self._blended(self._controlled(nameplate), nameplate)

    def _controlled(self, nameplate: Nameplate) -> dict[str, ActionLayout]:
        """Layouts of the controlled commands."""
        if self.controlled is None:
            return {g.name: ActionLayout.of(g, None) for g in nameplate.groups}
        names = [g.name for g in nameplate.groups]
        for name in self.controlled:
            if name not in names:
                raise ConfigurationError(
                    f"learner.controlled: site {nameplate.site!r} has no group {name!r}; it has {', '.join(names)}"
                    f"{nearest(name, names)}"
                )
        layouts = {
            g.name: ActionLayout.of(g, self.controlled[g.name]) for g in nameplate.groups if g.name in self.controlled
        }
        if not layouts:
            raise ConfigurationError(f"learner.controlled: names no group; groups here: {', '.join(names)}")
        return layouts

    def _blended(self, layouts: dict[str, ActionLayout], nameplate: Nameplate) -> dict[str, ActionLayout]:
        """Layouts with what the learner's ``blend`` makes of those that it names."""
        if not self.blend:
            return layouts
        if self.shield is not None:
            raise ConfigurationError(
                "learner.blend: a shield's commands can't be told as weights of motions; leave rollout.shield out, or "
                "blend (a site may keep its guard inside the twin)"
            )
        for name in self.blend:
            if name not in layouts:
                raise ConfigurationError(
                    f"learner.blend: {name!r} is no group that learns; they are {', '.join(layouts)}"
                    f"{nearest(name, layouts)}"
                )
        if self.encoder_name is None:
            raise ConfigurationError("learner.blend: weighs motions that an encoder proposes; name one under encoder")
        encoder = self.site.encoder(self.encoder_name, nameplate, self.encoder_settings)
        motions = encoder.motions if isinstance(encoder, BlendingEncoder) else {}
        blended = dict(layouts)
        for name, wanted in self.blend.items():
            of_group = motions if encoder.group == name else {}
            blended[name] = layouts[name].blended(nameplate.group(name), of_group, wanted)
        return blended

    def check(self) -> None:
        """Raise for whatever is wrong with site, task, encoder, commands or device, before anything is written."""
        if self.device.startswith("cuda"):
            import torch

            if not torch.cuda.is_available():
                raise ConfigurationError(
                    f"device: {self.device!r}, but torch finds no CUDA GPU here; use cpu, or a torch built for CUDA"
                )
        self.encoders(self.nameplate())
        self.task()
        if self.constraint_prices:
            from .watched_twin import check_prices

            check_prices(self.constraint_prices, declaration_of_site(self.site, self.site_config))
        self.twin(1)

    def encoders(self, nameplate: Nameplate) -> dict[str, Encoder]:
        """One encoder a group that learns: the site's where it serves the group, else the asset's own signals."""
        chosen: dict[str, Encoder] = {}
        if self.encoder_name is not None:
            turns: list[Mapping[str, Any]] = [self.encoder_settings]
            if getattr(self.site, "encodes_every_group", False):  # such an encoder is told its group by a setting
                turns = [{"group": name, **self.encoder_settings} for name in self._controlled(nameplate)]
            for settings in turns:
                encoder = self.site.encoder(self.encoder_name, nameplate, settings)
                chosen[encoder.group] = encoder
        return {
            name: chosen[name] if name in chosen else OwnSignalsEncoder(nameplate, name)
            for name in self._controlled(nameplate)
        }
