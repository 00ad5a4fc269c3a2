"""Which monitors a run has: those of the site, and that of the policy's inputs where its artifact tells enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..envs.constraint import Declaration
from ..envs.constraint.temporal import Formula
from ..envs.errors import ConfigurationError
from .shield.monitors import Monitor, Watched, monitors_of


def watch(
    declaration: Declaration,
    policy: Any,
    tell: Callable[[str], object],
    requirements: Mapping[str, Formula] | None = None,
) -> tuple[Monitor, ...]:
    """The monitors of ``policy`` on a site; ``tell`` is told why its inputs are not watched.

    ``requirements``: over time, by name (:func:`~twinloop.envs.constraint.temporal.requirements_of_site`), besides the
    hard measured constraints. Only an artifact carries a sample of its inputs: rules, and artifacts of older versions,
    act unwatched.

    Example::

        shield = Shield(declaration, monitors=watch(declaration, policy, console.print))
    """
    of_site = monitors_of(declaration, formulas=requirements)
    if not isinstance(policy, Watched):
        return of_site
    if not policy.inputs:
        tell("the policy's inputs are not watched: its artifact holds no sample of them; train it again for one")
        return of_site
    try:
        return monitors_of(declaration, formulas=requirements, policy=policy)
    except ConfigurationError as error:
        tell(f"the policy's inputs are not watched: {error}")
        return of_site
