"""Benchmarks that ``twinloop bench`` finds: every module here with ``NAME``, ``SUMMARY``, ``configure`` and ``run``.

``configure(parser)`` adds the arguments; ``run(arguments) -> int`` measures, prints its figure beside the bar, and
returns 0 when the bar is met, 1 when it is missed.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ...envs.errors import ConfigurationError, nearest


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's name and one line about it; its module is imported only by :meth:`load`."""

    name: str
    summary: str
    module: str

    def load(self) -> ModuleType:
        """Import the module; raises :class:`ConfigurationError` when it lacks a part of the contract."""
        module = importlib.import_module(self.module)
        missing = [part for part in ("NAME", "SUMMARY", "configure", "run") if not hasattr(module, part)]
        if missing:
            raise ConfigurationError(f"benchmark {self.name!r}: {self.module} lacks {', '.join(missing)}")
        return module


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name. NAME and SUMMARY are read from the source, so that listing imports no simulator."""
    found: dict[str, Benchmark] = {}
    for info in pkgutil.iter_modules(__path__):
        spec = importlib.util.find_spec(f"{__name__}.{info.name}")
        if spec is None or spec.origin is None:
            continue
        texts = _constants(Path(spec.origin))
        if "NAME" in texts and "SUMMARY" in texts:
            found[texts["NAME"]] = Benchmark(texts["NAME"], texts["SUMMARY"], f"{__name__}.{info.name}")
    return dict(sorted(found.items()))


def find(name: str) -> Benchmark:
    """The benchmark of that name; raises :class:`ConfigurationError` with the nearest one."""
    known = benchmarks()
    if name not in known:
        raise ConfigurationError(
            f"benchmark {name!r} is not known; there are {', '.join(known) or 'none'}{nearest(name, known)}"
        )
    return known[name]


def _constants(path: Path) -> dict[str, str]:
    """Text constants at the top level of a source file."""
    found: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update({t.id: node.value.value for t in node.targets if isinstance(t, ast.Name)})
    return found
