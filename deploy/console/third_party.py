"""The browser's libraries, as they lie in installed packages: HTMX and uPlot, byte for byte as their authors published.

Nothing is fetched from elsewhere, since a control room has no internet, and nothing of others is kept in this project.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ...envs.errors import ConfigurationError, MissingExtraError


@dataclass(frozen=True)
class Library:
    """``package`` carries ``path``; ``sha256`` is that of the file in the authors' own release of ``version``."""

    package: str
    path: str
    version: str
    sha256: str
    media_type: str


LIBRARIES = {
    "htmx.js": Library(
        "js_lib_htmx", "static/htmx/htmx.min.js", "htmx.org 2.0.3",
        "491955cd1810747d7d7b9ccb936400afb760e06d25d53e4572b64b6563b2784e", "text/javascript",
    ),
    "uplot.js": Library(
        "youplot", "vendor/uplot.iife.min.js", "uplot 1.6.31",
        "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2", "text/javascript",
    ),
    "uplot.css": Library(
        "youplot", "vendor/uplot.min.css", "uplot 1.6.31",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04", "text/css",
    ),
}  # fmt: skip


def load(name: str) -> bytes:
    """The file's bytes; raises :class:`ConfigurationError` where they are not those that were published."""
    library = LIBRARIES[name]
    spec = find_spec(library.package)  # finds, and runs nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(library.package, "console", "twinloop console")
    path = Path(next(iter(spec.submodule_search_locations))) / library.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}); install twinloop[console] again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != library.sha256:
        raise ConfigurationError(
            f"{path}: not {library.version} (SHA-256 {found}, expected {library.sha256}); "
            "install twinloop[console] again, from a source that you trust"
        )
    return data
