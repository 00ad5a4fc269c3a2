"""The site: its nameplate, its interface, its telemetry and its twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....envs.nameplate import Nameplate, Signal
from ...drivers.opcua_address import NAMESPACE_URI, points
from .elements import (
    Element,
    collection,
    english,
    file,
    id_short,
    listed,
    meaning,
    shell,
    span,
    submodel,
    submodel_reference,
    text,
)
from .semantics import INTERFACE, NAMEPLATE, SIMULATION, TEMPLATES, TIME_SERIES

BINARY = "application/octet-stream"


def site_shell(
    plate: Nameplate,
    base: str,
    manufacturer: str | None,
    endpoint: str | None,
    limits: Mapping[str, Any] | None,
    twin: Mapping[str, Any] | None,
) -> tuple[Element, list[Element], list[str]]:
    """The shell, its submodels, and what the templates ask for and nobody told."""
    asset, missing = f"{base}/site/{plate.hash}", list[str]()
    models = [
        _nameplate(plate, asset, base, manufacturer, limits, missing),
        _interface(plate, base, endpoint, missing),
        _telemetry(plate, base, missing),
    ]
    if twin is None:
        missing.append("SimulationModels: an artifact has no twin; export a package")
    else:
        models.append(_twin(plate, base, twin))
    hashes = {"nameplate_sha256": plate.hash, "interface_sha256": plate.interface_hash}
    if limits is not None:
        hashes["limits_sha256"] = limits["hash"]
    return shell(f"{base}/aas/site/{plate.hash}", id_short(plate.site), asset, hashes, models), models, missing


def _nameplate(
    plate: Nameplate,
    asset: str,
    base: str,
    manufacturer: str | None,
    limits: Mapping[str, Any] | None,
    missing: list[str],
) -> Element:
    found = [text(asset, "URIOfTheProduct", NAMEPLATE["URIOfTheProduct"], "xs:anyURI")]
    if manufacturer is None:
        missing.append("Nameplate/ManufacturerName: give --manufacturer")
    else:
        found.append(english(manufacturer, "ManufacturerName", NAMEPLATE["ManufacturerName"]))
    designation = plate.description or plate.site
    found.append(english(designation, "ManufacturerProductDesignation", NAMEPLATE["ManufacturerProductDesignation"]))
    missing += [f"Nameplate/{name}: not known here" for name in ("AddressInformation", "OrderCodeOfManufacturer")]
    own = {
        "site": plate.site,
        "period_s": plate.period_s,
        "n_assets": len(plate.agents),
        **{f"label_{key}": value for key, value in plate.labels.items()},
        **{f"limit_{row['name']}": f"{row['limit']}, {row['priority']}" for row in (limits or {}).get("rows", ())},
    }
    properties = [text(value, id_short(key), NAMEPLATE["ArbitraryProperty"]) for key, value in own.items()]
    found.append(collection(properties, "AssetSpecificProperties", NAMEPLATE["AssetSpecificProperties"]))
    return submodel(f"{base}/submodel/Nameplate/{plate.hash}", "Nameplate", TEMPLATES["Nameplate"], found)


def _interface(plate: Nameplate, base: str, endpoint: str | None, missing: list[str]) -> Element:
    """The address space of :mod:`....drivers.opcua_address`, as the OPC UA binding has it."""
    identifier = f"{base}/submodel/AssetInterfacesDescription/{plate.hash}"
    scheme = text("auto", "scheme", INTERFACE["scheme"])
    metadata = [
        text(BINARY, "contentType", INTERFACE["contentType"]),
        listed(
            [{"modelType": "ReferenceElement", "value": submodel_reference(identifier)}],
            "ReferenceElement",
            "security",
            INTERFACE["security"],
        ),
        collection(
            [collection([scheme], "auto_sc", INTERFACE["auto_sc"])],
            "securityDefinitions",
            INTERFACE["securityDefinitions"],
        ),
    ]
    if endpoint is None:
        missing.append("AssetInterfacesDescription/EndpointMetadata/base: give --endpoint")
    else:
        metadata.insert(0, text(endpoint, "base", INTERFACE["base"], "xs:anyURI"))
    properties = [
        _datapoint(point.name, point.signal, f"?id=nsu={NAMESPACE_URI};s={point.node}", kind)
        for kind in ("measured", "commanded")
        for point in points(plate, kind)
    ]
    interaction = collection(
        [collection(properties, "properties", INTERFACE["properties"])],
        "InteractionMetadata",
        INTERFACE["InteractionMetadata"],
    )
    interaction["supplementalSemanticIds"] = [meaning(INTERFACE["interaction"])]
    whole = collection(
        [
            text(f"{plate.site} by OPC UA", "title", INTERFACE["title"]),
            collection(metadata, "EndpointMetadata", INTERFACE["EndpointMetadata"]),
            interaction,
        ],
        "InterfaceOPCUA",
        INTERFACE["Interface"],
    )
    whole["supplementalSemanticIds"] = [meaning(INTERFACE["thing"])]
    return submodel(identifier, "AssetInterfacesDescription", TEMPLATES["AssetInterfacesDescription"], [whole])


def _datapoint(name: str, signal: Signal, href: str, kind: str) -> Element:
    told = f"{signal.description or signal.name} ({kind})"
    return collection(
        [
            text(name, "key", INTERFACE["key"]),
            text("number", "type", INTERFACE["type"]),
            text(told, "title", INTERFACE["title"]),
            text(True, "observable", INTERFACE["observable"], "xs:boolean"),
            text(signal.unit or "1", "unit", INTERFACE["unit"]),
            span(signal.minimum, signal.maximum, "min_max", INTERFACE["min_max"]),
            collection([text(href, "href", INTERFACE["href"])], "forms", INTERFACE["forms"]),
        ],
        id_short(name),
        INTERFACE["PropertyDefinition"],
    )


def _telemetry(plate: Nameplate, base: str, missing: list[str]) -> Element:
    """The history that `twinloop audit` keeps, asked in SQL; its columns are named by the values of the record."""
    signals = [(name, "measured") for name in plate.signal_names("measured")]
    signals += [(name, "commanded") for name in plate.signal_names("commanded")]
    record = [text(name, id_short(name)) for name, _ in signals]
    metadata = [
        english(f"{plate.site}: telemetry", "Name", TIME_SERIES["Name"]),
        english("One row a period: measured and commanded signals", "Description", TIME_SERIES["Description"]),
        collection(record, "Record", TIME_SERIES["Record"]),
    ]
    missing.append(
        "TimeSeries/Record: no meaning of a signal is published, and none for UTC time: semanticIds left out"
    )
    segment = collection(
        [
            english("history of twinloop audit", "Name", TIME_SERIES["SegmentName"]),
            text("history", "Endpoint", TIME_SERIES["Endpoint"]),
            text("SELECT * FROM history", "Query", TIME_SERIES["Query"]),
        ],
        "LinkedSegment",
        TIME_SERIES["LinkedSegment"],
    )
    elements = [
        collection(metadata, "Metadata", TIME_SERIES["Metadata"]),
        collection([segment], "Segments", TIME_SERIES["Segments"]),
    ]
    return submodel(f"{base}/submodel/TimeSeries/{plate.hash}", "TimeSeries", TEMPLATES["TimeSeries"], elements)


def _twin(plate: Nameplate, base: str, twin: Mapping[str, Any]) -> Element:
    ids = SIMULATION
    solver = [
        text(False, "StepSizeControlNeeded", ids["StepSizeControlNeeded"], "xs:boolean"),
        text(plate.period_s, "FixedStepSize", ids["FixedStepSize"], "xs:float"),
        text(False, "StiffSolverNeeded", ids["StiffSolverNeeded"], "xs:boolean"),
    ]
    tool = [
        text("twinloop", "SimToolName", ids["SimToolName"]),
        collection(solver, "SolverAndTolerances", ids["SolverAndTolerances"]),
    ]
    version = [
        text(twin["hash"], "ModelVersionId", ids["ModelVersionId"]),
        file("twin.json", "application/json", "DigitalFile", ids["DigitalFile"]),
    ]
    model = [
        english(f"Batched twin of {plate.site}, site {twin['site']} of twinloop", "Summary", ids["Summary"]),
        collection(
            [
                text("control", "PosSimPurpose", ids["PosSimPurpose"]),
                text("what becomes of a change before it is made", "PosSimPurpose2", ids["PosSimPurpose"]),
            ],
            "SimPurpose",
            ids["SimPurpose"],
        ),
        text("discrete time", "TypeOfModel", ids["TypeOfModel"]),
        text(", ".join(group.name for group in plate.groups), "ScopeOfModel", ids["ScopeOfModel"]),
        collection(
            [
                text("any with Python 3.11", "OperatingSystem", ids["OperatingSystem"]),
                collection(tool, "SimulationTool", ids["SimulationTool"]),
            ],
            "Environment",
            ids["Environment"],
        ),
        collection(
            [
                text("twinloop configuration", "ModelFileType", ids["ModelFileType"]),
                collection(version, "ModelFileVersion", ids["ModelFileVersion"]),
            ],
            "ModelFile",
            ids["ModelFile"],
        ),
        text("file", "ParamMethod", ids["ParamMethod"]),
        file("twin.json", "application/json", "ParamFile", ids["ParamFile"]),
        text("seed", "InitStateMethod", ids["InitStateMethod"]),
    ]
    elements = [collection(model, "SimulationModel", ids["SimulationModel"])]
    identifier = f"{base}/submodel/SimulationModels/{twin['hash']}"
    return submodel(identifier, "SimulationModels", TEMPLATES["SimulationModels"], elements)
