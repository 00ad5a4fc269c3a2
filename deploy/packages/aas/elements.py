"""Submodel elements as the JSON of the AAS metamodel 3.0 (IDTA 01001) has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

Element = dict[str, Any]


def id_short(text: str) -> str:
    """``text`` as a name that the metamodel allows: letters, digits, underscores, a letter first."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return (found if re.match(r"[A-Za-z]", found) else f"x_{found}")[:128]


def meaning(semantic_id: str, kind: str = "GlobalReference") -> Element:
    """A reference to what something means outside."""
    return {"type": "ExternalReference", "keys": [{"type": kind, "value": semantic_id}]}


def submodel_reference(identifier: str) -> Element:
    """A reference to a submodel of the same environment."""
    return {"type": "ModelReference", "keys": [{"type": "Submodel", "value": identifier}]}


def text(value: Any, name: str, semantic_id: str | None = None, value_type: str = "xs:string") -> Element:
    """A property. Without a known meaning ``semantic_id`` is None, and none is told."""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    found: Element = {"modelType": "Property", "idShort": name, "valueType": value_type, "value": shown}
    return _meant(found, semantic_id)


def english(value: str, name: str, semantic_id: str | None = None) -> Element:
    """A property in a language."""
    told = [{"language": "en", "text": value[:1000]}]
    return _meant({"modelType": "MultiLanguageProperty", "idShort": name, "value": told}, semantic_id)


def span(minimum: float, maximum: float, name: str, semantic_id: str | None = None) -> Element:
    """A range of numbers."""
    found = {
        "modelType": "Range",
        "idShort": name,
        "valueType": "xs:double",
        "min": repr(minimum),
        "max": repr(maximum),
    }
    return _meant(found, semantic_id)


def file(path: str, content_type: str, name: str, semantic_id: str | None = None) -> Element:
    """A file of the package, by its name there."""
    found = {"modelType": "File", "idShort": name, "contentType": content_type, "value": path}
    return _meant(found, semantic_id)


def reference(target: Element, name: str, semantic_id: str | None = None) -> Element:
    """An element that points at another one."""
    return _meant({"modelType": "ReferenceElement", "idShort": name, "value": target}, semantic_id)


def collection(elements: Iterable[Element], name: str, semantic_id: str | None = None) -> Element:
    """Elements under one name; an empty one tells no value, as the metamodel wants it."""
    found: Element = {"modelType": "SubmodelElementCollection", "idShort": name}
    held = list(elements)
    if held:
        found["value"] = held
    return _meant(found, semantic_id)


def listed(elements: Sequence[Element], kind: str, name: str, semantic_id: str | None = None) -> Element:
    """Elements of one kind in an order, without names."""
    found = {
        "modelType": "SubmodelElementList",
        "idShort": name,
        "orderRelevant": True,
        "typeValueListElement": kind,
        "value": list(elements),
    }
    return _meant(found, semantic_id)


def submodel(identifier: str, name: str, semantic_id: str, elements: Iterable[Element]) -> Element:
    """A submodel of an instance."""
    return {
        "modelType": "Submodel",
        "id": identifier,
        "idShort": name,
        "kind": "Instance",
        "semanticId": meaning(semantic_id),
        "submodelElements": list(elements),
    }


def shell(identifier: str, name: str, asset: str, hashes: dict[str, str], submodels: Iterable[Element]) -> Element:
    """A shell of one asset. ``hashes``: what ties it to what twinloop runs, as specific asset ids."""
    specific = [{"name": key, "value": value} for key, value in hashes.items()]
    return {
        "modelType": "AssetAdministrationShell",
        "id": identifier,
        "idShort": name,
        "assetInformation": {"assetKind": "Instance", "globalAssetId": asset, "specificAssetIds": specific},
        "submodels": [submodel_reference(s["id"]) for s in submodels],
    }


def _meant(element: Element, semantic_id: str | None) -> Element:
    return element if semantic_id is None else {**element, "semanticId": meaning(semantic_id)}
