"""Read a YAML file into a frozen model, or say everything that is wrong with it.

:func:`load` reads a file, follows its ``extends``, applies overrides such as ``learner.lr=1e-4`` and validates the
result; :func:`dump` writes a model so that ``load`` reads an equal one. Nothing here imports a simulator.

YAML is read by the rules of version 1.2, where ``1e-4`` is a number and ``no`` and ``12:30`` are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .complaint import complaints
from .errors import ConfigurationError, nearest

M = TypeVar("M", bound=BaseModel)
Keys = tuple[Any, ...]
"""Keys from the top of a document down to one value."""

EXTENDS = "extends"
KIND = "kind"


class Strict(BaseModel):
    """A configuration model: frozen, unknown keys forbidden, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def load(path: str | Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Return the ``model`` that a file and its overrides describe.

    ``overrides`` are texts ``a.b.c=value``, the value in YAML. Raises :class:`ConfigurationError` with one line for
    everything that is wrong, each beginning with the file (or the override) that it stands in.
    """
    data, sources = _resolve(Path(path), overrides)
    return _validated(data, model, lambda keys: _source(sources, keys, str(path)))


def load_mapping(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the mapping of a file with ``extends`` followed and ``overrides`` applied, not validated.

    A file names one parent, ``extends: ../base.yaml``, relative to itself. Mappings merge key by key, lists and values
    replace; a mapping of another ``kind`` than its parent's replaces it too, since the old options mean nothing there.
    """
    return _resolve(Path(path), overrides)[0]


def validate(data: Mapping[str, Any], model: type[M], where: str) -> M:
    """Return the ``model`` of a mapping; errors begin with ``where``, such as the file's name."""
    return _validated(data, model, lambda keys: where)


def dump(model: BaseModel) -> str:
    """Return YAML that :func:`load` reads back as an equal model."""
    plain = model.model_dump(mode="json", by_alias=True, serialize_as_any=True)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _validated(data: Mapping[str, Any], model: type[M], where: Callable[[Keys], str]) -> M:
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        lines = [f"{where(c.keys)}: {c.text}" for c in complaints(error, model, data)]
        raise ConfigurationError("\n".join(lines)) from error


def _resolve(path: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[Keys, str]]:
    """Return the merged mapping, and where each of its values came from."""
    data, sources = _read_with_parents(path, ())
    for override in overrides:
        layer = _override_layer(override, data)
        sources = _merged_sources(sources, data, layer, f"--set {override}")
        data = _merge(data, layer)
    return data, sources


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], dict[Keys, str]]:
    if path.resolve() in children:
        chain = " -> ".join(str(p.name) for p in (*children, path))
        raise ConfigurationError(f"{path}: {EXTENDS} runs in a circle: {chain}; let one of them extend nothing")
    layer = _read(path)
    parent = layer.pop(EXTENDS, None)
    if parent is None:
        return layer, _merged_sources({}, {}, layer, str(path))
    if not isinstance(parent, str):
        raise ConfigurationError(f"{path}: {EXTENDS}: {parent!r}; must be the path of one YAML file")
    data, sources = _read_with_parents(path.parent / parent, (*children, path.resolve()))
    return _merge(data, layer), _merged_sources(sources, data, layer, str(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigurationError(f"{path}: no such file{nearest(path.name, beside)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    data = _parse(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: a {type(data).__name__} at the top; must be a mapping, such as 'seed: 1'")
    return data


def _parse(text: str, where: str) -> Any:
    try:
        loader = _Loader(text)
        try:
            data = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{where}: not valid YAML: {error}") from error
    if loader.repeated:
        lines = [f"{where}:{line}: {key}: comes twice in one mapping; keep one" for key, line in loader.repeated]
        raise ConfigurationError("\n".join(lines))
    return data


def _override_layer(override: str, data: Mapping[str, Any]) -> dict[str, Any]:
    where = f"--set {override}"
    name, equals, text = override.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise ConfigurationError(f"{where}: must be KEY=VALUE, such as learner.lr=1e-4")
    node: Any = data
    for depth, key in enumerate(keys):
        if isinstance(node, list):
            raise ConfigurationError(f"{where}: {'.'.join(keys[:depth])} is a list; give it as a whole: [..., ...]")
        node = node.get(key) if isinstance(node, Mapping) else None
    value = _parse(text, where)
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _replaces(below: Any, above: Any) -> bool:
    """Whether ``above`` takes the place of ``below`` as a whole."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return True
    return KIND in below and KIND in above and below[KIND] != above[KIND]


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        merged[key] = value if key not in below or _replaces(below[key], value) else _merge(below[key], value)
    return merged


def _merged_sources(
    sources: dict[Keys, str], below: Mapping[str, Any], above: Mapping[str, Any], source: str, at: Keys = ()
) -> dict[Keys, str]:
    """Return ``sources`` with every value that ``above`` brings marked as coming from ``source``."""
    merged = dict(sources)
    for key, value in above.items():
        here = (*at, key)
        if key in below and not _replaces(below[key], value):
            merged = _merged_sources(merged, below[key], value, source, here)
        else:
            merged = {k: s for k, s in merged.items() if k[: len(here)] != here}
            merged[here] = source
    return merged


def _source(sources: Mapping[Keys, str], keys: Keys, top: str) -> str:
    """Return the source of the value at ``keys``, or of the nearest mapping around it."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in sources:
            return sources[keys[:length]]
    return top


class _Loader(yaml.SafeLoader):
    """A safe loader that also notes keys that come twice in one mapping."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.repeated.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Decimal, or hexadecimal after 0x: a leading zero makes no octal number here."""
        text = str(self.construct_scalar(node))
        return int(text, 16 if text.startswith("0x") else 10)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes what :class:`_Loader` would not read as text."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
# The core schema of YAML 1.2.2, section 10.3.2: tag, pattern, first characters.
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+.0123456789",
        ),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", "<"),
    ):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))
