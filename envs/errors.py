"""Everything twinloop raises on purpose.

    TwinloopError
    ├── ConfigurationError      a YAML key, value or override that cannot be used
    ├── NameplateError          a site declaration that contradicts itself, or two that disagree
    ├── LayoutError             coordinates that no plant could have
    ├── MissingExtraError       an optional package that is not installed
    ├── UnknownSiteError        a site name that the registry does not hold
    ├── ContractError           an implementation that breaks a twin, plant or policy contract
    ├── NumericalError          a NaN or infinity, with replica, asset and signal
    ├── ArtifactError           a policy artifact that is damaged or does not fit
    ├── PackageError            a package for the field that is refused: unsigned, changed, of another site, older
    ├── PlantError              a plant that cannot be reached, or refuses
    ├── JournalError            a journal that cannot be written, so that nothing may be sent
    └── RunError                a run folder that cannot be used or resumed

Every message says where, what came, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class TwinloopError(Exception):
    """Root of all errors that twinloop raises on purpose."""


class ConfigurationError(TwinloopError):
    """A configuration key, value or override that cannot be used."""


class NameplateError(TwinloopError):
    """A site declaration that contradicts itself, or two that disagree."""


class LayoutError(TwinloopError):
    """Coordinates that no plant could have."""


class MissingExtraError(TwinloopError):
    """An optional package that is needed here and is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'twinloop[{extra}]'"
        )


class UnknownSiteError(TwinloopError):
    """A site name that the registry does not hold."""


class ContractError(TwinloopError):
    """An implementation that breaks a twin, plant or policy contract."""


class NumericalError(TwinloopError):
    """A NaN or infinity where a finite number is needed."""


class ArtifactError(TwinloopError):
    """A policy artifact that is damaged or does not fit the plant."""


class PackageError(TwinloopError):
    """A package for the field that may not be installed here."""


class PlantError(TwinloopError):
    """A plant that cannot be reached, or refuses."""


class JournalError(TwinloopError):
    """A journal that cannot be written, so that nothing may be sent."""


class RunError(TwinloopError):
    """A run folder that cannot be used or resumed."""


@contextmanager
def located(where: object) -> Iterator[None]:
    """Begin the message of a wrong configuration, layout or nameplate with where it stands, such as a file's name."""
    try:
        yield
    except (ConfigurationError, LayoutError, NameplateError) as error:
        raise type(error)(f"{where}: {error}") from error


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return `` (did you mean X?)`` for the closest candidate, or an empty string."""
    match = difflib.get_close_matches(word, list(candidates), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
