"""Seeds as people write them: ``0..9``, ``0,3,7``, ``0..4,9``."""

from __future__ import annotations

import re

from ..envs.errors import ConfigurationError

_MOST = 10_000
_PART = re.compile(r"\s*(\d+)\s*(?:\.\.\s*(\d+)\s*)?")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Distinct seeds in the order given; both ends of a range belong to it. Raises :class:`ConfigurationError`."""
    seeds: dict[int, None] = {}
    for part in (word for word in text.split(",") if word.strip()):
        found = _PART.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last - first >= _MOST:
            raise _wrong(text)
        seeds.update(dict.fromkeys(range(first, last + 1)))
    if not seeds:
        raise _wrong(text)
    return tuple(seeds)


def _wrong(text: str) -> ConfigurationError:
    return ConfigurationError(f"--seeds: {text!r}; give whole numbers from 0 on, such as 0,3,7 or 0..9")
