"""What is wrong with a configuration, in the user's words: pydantic's errors with the keys that are allowed instead.

A pydantic location mixes keys with labels of union members; :func:`_walk` goes down the model's annotations beside it,
which separates the two and finds the model whose keys are allowed at that place.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import nearest

UNIT_SUFFIXES = frozenset(
    (
        *("s", "ms", "min", "h", "day", "hz", "mm", "m", "km", "mps", "kmh", "deg", "rad", "degps", "radps"),
        *("w", "kw", "mw", "kwh", "mwh", "degc", "k", "pa", "kpa", "bar", "kg", "kgpm3", "pu", "pct", "d", "eur"),
    )
)
"""Endings of a key that name its unit."""
SHOWN_LENGTH = 60
KIND = "kind"


@dataclass(frozen=True)
class Complaint:
    """One thing wrong: the keys down to it, and ``key.path: what came; what is allowed``."""

    keys: tuple[Any, ...]
    text: str


def complaints(error: ValidationError, model: type[BaseModel], data: Any) -> list[Complaint]:
    """Return what is wrong with ``data``, which ``model`` has refused with ``error``, in the order of the model."""
    found: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    is_of_another_kind = False
    for detail in error.errors(include_url=False):
        keys, annotation = _walk(model, detail["loc"], data)
        is_of_another_kind |= detail["type"] == "literal_error" and keys == (KIND,)
        reasons = found.setdefault(keys, [])
        reason = _reason(detail, keys, annotation)
        if reason not in reasons:
            reasons.append(reason)
    if is_of_another_kind:  # a whole file of another kind: its other keys say nothing more
        found = {(KIND,): found[(KIND,)]}
    return [Complaint(keys, _sentence(keys, reasons)) for keys, reasons in found.items()]


def nearest_key(key: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean X?)``; a key that differs in its unit alone comes before one that is spelled alike."""
    allowed = list(allowed)
    for stem in (key, key.rpartition("_")[0]):
        for candidate in allowed:
            if stem and _without_unit(candidate) == stem:
                unit = candidate.rpartition("_")[2]
                return f" (did you mean {candidate!r}? its unit is {unit!r})"
    return nearest(key, allowed)


def _without_unit(key: str) -> str:
    stem, _, unit = key.rpartition("_")
    return stem if unit in UNIT_SUFFIXES else ""


def _sentence(keys: tuple[Any, ...], reasons: Sequence[tuple[str, str]]) -> str:
    """Join the reasons of one place: the members of a union each give one."""
    came = reasons[0][0]
    allowed = ", or ".join(text for _, text in reasons)
    said = f"{came}; {allowed}" if came else allowed
    return f"{'.'.join(map(str, keys))}: {said}" if keys else said


def _reason(detail: ErrorDetails, keys: tuple[Any, ...], annotation: Any) -> tuple[str, str]:
    """Return (what came, what is allowed)."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    models = _models(annotation)
    if kind == "extra_forbidden":
        # The walk stops at the model that has no such key.
        allowed = _keys_of(models)
        if not allowed:
            return "unknown key", "remove it"
        return "unknown key", f"keys here: {', '.join(allowed)}{nearest_key(str(keys[-1]), allowed)}"
    if kind == "missing":
        return "missing", f"give {_described(annotation)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name = str(context["discriminator"]).strip("'")
        tags = [str(tag) for model in models for tag in _tags(model, name)]
        if kind == "union_tag_not_found":
            return f"{name} is missing", f"give {name}: one of {', '.join(tags)}"
        tag = str(context["tag"])
        return f"{name} {tag!r}", f"must be one of {', '.join(tags)}{nearest(tag, tags)}"
    if kind in ("literal_error", "enum"):
        choices = [c for c in _choices(annotation) if isinstance(c, str)]
        return _shown(value), f"must be {context['expected']}{nearest(str(value), choices)}"
    if kind in ("value_error", "assertion_error"):
        reason = str(context.get("error", detail["msg"]))
        return ("" if isinstance(value, Mapping | BaseModel) else _shown(value)), reason
    if models and kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return _shown(value), f"must be a mapping with the keys {', '.join(_keys_of(models))}"
    return _shown(value), _allowed(kind, detail["msg"])


def _allowed(kind: str, message: str) -> str:
    """Say in YAML's words what pydantic says in Python's."""
    if kind.startswith(("tuple_type", "list_type", "set_type", "frozen_set_type")):
        return "must be a list [..., ...]"
    text = message.partition(", unable to parse")[0].partition(", got ")[0]
    text = text.replace("Input should be", "must be").replace("Input should have", "must have")
    for python, words in (
        ("a valid dictionary", "a mapping"), ("a valid integer", "a whole number"), ("a valid number", "a number"),
        ("a valid string", "text"), ("a valid boolean", "true or false"),
    ):  # fmt: skip
        text = text.replace(python, words)
    return text[:1].lower() + text[1:]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}..."


def _described(annotation: Any) -> str:
    """Name what an annotation accepts, for a key that is missing."""
    models = _models(annotation)
    if models:
        allowed = _keys_of(models)
        return f"a mapping with keys among {', '.join(allowed)}" if allowed else "a mapping"
    choices = _choices(annotation)
    if choices:
        return f"one of {', '.join(map(str, choices))}"
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        tuple: "a list",
        list: "a list",
    }
    return " or ".join(dict.fromkeys(words.get(get_origin(m) or m, "a value") for m in _members(annotation)))


def _walk(model: type[BaseModel], location: Sequence[int | str], data: Any) -> tuple[tuple[Any, ...], Any]:
    """Return the keys of a location without its union labels, and the annotation there.

    For an unknown key the annotation is that of the mapping it stands in. It is None where the model does not say.
    """
    keys: list[Any] = []
    annotation: Any = model
    for part in location:
        members = _members(annotation)
        if len(members) > 1:
            # A union of several members puts a label in front of what lies in the member.
            chosen = [m for m in members if part in _labels(m)] or [m for m in members if len(_members(m)) > 1]
            annotation = chosen[0] if chosen else None
            continue
        if part == "[key]":
            continue
        if annotation in (None, Any, BaseModel):
            # The model does not say what is here (its validator does): what the data holds are keys, the rest labels.
            annotation = None
            if not _holds(data, part):
                continue
        keys.append(part)
        below = _child(members[0] if len(members) == 1 else None, part)
        if below is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return tuple(keys), annotation
        annotation = below
        data = data[part] if _holds(data, part) else None
    return tuple(keys), annotation


def _holds(data: Any, part: Any) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, Sequence) and isinstance(part, int) and part < len(data)


def _child(annotation: Any, part: Any) -> Any:
    """Return the annotation one key or index further down, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, info in annotation.model_fields.items():
            if part in (name, info.alias):
                return info.annotation
        return None
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if not arguments or not isinstance(origin, type):
        return None
    if issubclass(origin, Mapping):
        return arguments[1]
    if issubclass(origin, tuple) and isinstance(part, int) and arguments[-1] is not Ellipsis:
        return arguments[part] if part < len(arguments) else None
    return arguments[0]


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, None left out, or the annotation alone; strips ``Annotated``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for m in get_args(annotation) if m is not types.NoneType]
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            found.append(member)
        elif member is not annotation:
            found += _models(member)
    return found


def _labels(member: Any) -> set[str]:
    """Return how pydantic may name a member of a union in a location."""
    labels = {getattr(member, "__name__", ""), str(member).replace("typing.", "").lower()}
    for model in _models(member):
        labels.add(model.__name__)
        labels.update(str(tag) for name in model.model_fields for tag in _tags(model, name))
    return labels


def _tags(model: type[BaseModel], name: str) -> tuple[Any, ...]:
    info = model.model_fields.get(name)
    return _choices(info.annotation) if info else ()


def _choices(annotation: Any) -> tuple[Any, ...]:
    return tuple(
        choice for member in _members(annotation) if get_origin(member) is Literal for choice in get_args(member)
    )


def _keys_of(models: Iterable[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(info.alias or name for m in models for name, info in m.model_fields.items()))
