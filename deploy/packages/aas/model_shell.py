"""The policy: what it is, what it was taught and found to do, and how it is deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ....agents.forward import PolicyNetwork
from ....envs.nameplate import Nameplate
from .elements import Element, collection, english, file, id_short, reference, shell, submodel, submodel_reference, text
from .semantics import DEPLOYMENT, MODEL, TEMPLATES

ONNX = "application/octet-stream"
"""ONNX has no media type of its own with IANA."""
_MOST_RESULTS = 60


def model_shell(
    plate: Nameplate,
    base: str,
    policy: str,
    about: Mapping[str, Any],
    networks: Mapping[str, PolicyNetwork],
    report: Mapping[str, Any],
    version: str,
) -> tuple[Element, list[Element], list[str]]:
    """The shell, its submodels, and what the templates ask for and nobody told. ``policy``: the artifact's hash."""
    asset = f"{base}/model/{policy}"
    named = _nameplate(base, asset, policy, about, networks, report, version)
    deployed = _deployment(plate, base, asset, policy, networks, version, named["id"])
    missing = [
        f"{name}/ContactInformation: a reference to a submodel that nobody gave"
        for name in ("AIModelNameplate", "AIDeployment")
    ]
    hashes = {"artifact_sha256": policy, "nameplate_sha256": about["nameplate_hash"]}
    whole = shell(f"{base}/aas/model/{policy}", f"policy_{policy[:12]}", asset, hashes, [named, deployed])
    return whole, [named, deployed], missing


def _nameplate(
    base: str,
    asset: str,
    policy: str,
    about: Mapping[str, Any],
    networks: Mapping[str, PolicyNetwork],
    report: Mapping[str, Any],
    version: str,
) -> Element:
    provenance = about.get("provenance", {})
    learner = _learner(provenance)
    versions = provenance.get("versions", {})
    inputs, outputs = list[Element](), list[Element]()
    for group, network in networks.items():
        size = text(network.n_features, "Size", MODEL["InputSize"])
        told = text(f"features of one asset of {group}", "Information", MODEL["InputInformation"])
        inputs.append(collection([size, told], id_short(f"Dimension_{group}"), MODEL["InputDimension"]))
        size = text(network.n_commands, "Size", MODEL["OutputSize"])
        result = english(f"commands of one asset of {group}, in its nameplate's units", "Result", MODEL["OutputResult"])
        outputs.append(collection([size, result], id_short(f"Dimension_{group}"), MODEL["OutputDimension"]))
    results = [text(value, name, MODEL["Result"]) for name, value in _flat(report)][:_MOST_RESULTS]
    kind = learner.get("kind")
    learning = f"reinforcement learning{f' ({kind})' if kind else ''}"
    elements = [
        text(asset, "URIOfTheProduct", MODEL["URIOfTheProduct"]),
        text(version, "Version", MODEL["Version"]),
        text("artifact", "Storage", MODEL["Storage"]),
        english(learning, "KindOfLearning", MODEL["KindOfLearning"]),
        collection([text("measured signals", "KindOfInput", MODEL["KindOfInput"]), *inputs], "Inputs", MODEL["Inputs"]),
        collection(outputs, "Outputs", MODEL["Outputs"]),
        collection(results, "TrainingResults", MODEL["TrainingResults"]),
        collection(
            [
                text(".onnx", "FileExtension", MODEL["FileExtension"]),
                text(f"ONNX, written by onnx {versions.get('onnx', 'unknown')}", "AIFramework", MODEL["AIFramework"]),
                text(f"Python {versions.get('python', 'unknown')}", "ProgramLanguage", MODEL["ProgramLanguage"]),
            ],
            "Details",
            MODEL["Details"],
        ),
        collection(
            [english(_kind(networks), "Type", MODEL["Type"])],
            "AITypeSpecificInformation",
            MODEL["AITypeSpecificInformation"],
        ),
    ]
    identifier = f"{base}/submodel/AIModelNameplate/{policy}"
    return submodel(identifier, "AIModelNameplate", TEMPLATES["AIModelNameplate"], elements)


def _deployment(
    plate: Nameplate,
    base: str,
    asset: str,
    policy: str,
    networks: Mapping[str, PolicyNetwork],
    version: str,
    nameplate_id: str,
) -> Element:
    files = [
        file(f"artifact/policy_{group}.onnx", ONNX, id_short(f"DeployedModel_{group}"), DEPLOYMENT["DeployedModel"])
        for group in networks
    ]
    if len(files) == 1:
        files[0]["idShort"] = "DeployedModel"
    groups = [plate.group(name) for name in networks]
    inputs = [
        text(
            f"{g.name}: {s.name}, {s.unit or '1'}, each asset",
            id_short(f"{g.name}_{s.name}"),
            DEPLOYMENT["InputProperty"],
        )
        for g in groups
        for s in g.measured
    ]
    outputs = [
        text(
            f"{g.name}: {s.name}, {s.unit or '1'}, each asset",
            id_short(f"{g.name}_{s.name}"),
            DEPLOYMENT["OutputProperty"],
        )
        for g in groups
        for s in g.commanded
    ]
    target = submodel_reference(nameplate_id)
    elements = [
        text(asset, "URIOfTheProduct", DEPLOYMENT["URIOfTheProduct"]),
        text(version, "Version", DEPLOYMENT["Version"]),
        reference(target, "ModelNameplateRef", DEPLOYMENT["ModelNameplateRef"]),
        collection([text("ONNX", "Format", DEPLOYMENT["Format"]), *files], "Storage", DEPLOYMENT["Storage"]),
        collection(inputs, "Input", DEPLOYMENT["Input"]),
        collection(outputs, "Output", DEPLOYMENT["Output"]),
    ]
    return submodel(f"{base}/submodel/AIDeployment/{policy}", "AIDeployment", TEMPLATES["AIDeployment"], elements)


def _learner(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The learner's part of the training's configuration, where the provenance has one."""
    try:
        found = yaml.safe_load(provenance.get("configuration", ""))
        learner = found.get("learner", {})
    except (yaml.YAMLError, AttributeError):
        return {}
    return learner if isinstance(learner, Mapping) else {}


def _kind(networks: Mapping[str, PolicyNetwork]) -> str:
    def one(network: PolicyNetwork) -> str:
        return "GRU" if network.n_memory else "MLP"

    return ", ".join(f"{group}: {one(network)}" for group, network in networks.items())


def _flat(report: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and texts of a report, by names that say where they stood."""
    if isinstance(report, Mapping):
        for key, value in report.items():
            yield from _flat(value, f"{name}_{key}" if name else str(key))
    elif isinstance(report, list):
        for number, value in enumerate(report, start=1):
            yield from _flat(value, f"{name}_{number}")
    elif report is not None:
        yield id_short(name), report
