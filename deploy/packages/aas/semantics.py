"""What the elements mean, by the ids that the Industrial Digital Twin Association published; none is made up here.

Read from the templates of github.com/admin-shell-io/submodel-templates, folder ``published``: 02006 Digital Nameplate
3.0.1, 02017 Asset Interfaces Description 1.1, 02008 Time Series Data 1.1.1, 02005 Provision of Simulation Models 1.1,
02060 AI Model Nameplate 1.0.1, 02059 AI Deployment 1.0.1. Terms of the W3C's Web of Things are used where they are.
"""

from __future__ import annotations

_IDTA = "https://admin-shell.io/idta/"
_AID = f"{_IDTA}AssetInterfacesDescription/1/0/"
_TIME = f"{_IDTA}TimeSeries/"
_SIM = f"{_IDTA}SimulationModels/"
_MODEL = f"{_IDTA}AIModelNameplate/"
_DEPLOYMENT = f"{_IDTA}AIDeployment/"
_TD, _SECURITY = "https://www.w3.org/2019/wot/td#", "https://www.w3.org/2019/wot/security#"
_HYPERMEDIA = "https://www.w3.org/2019/wot/hypermedia#"
_PRODUCT, _VERSION = "0112/2///61987#ABN590#002", "0173-1#02-AAS354#002"

TEMPLATES = {
    "Nameplate": f"{_IDTA}nameplate/3/0/Nameplate",
    "AssetInterfacesDescription": f"{_IDTA}AssetInterfacesDescription/1/1/Submodel",
    "TimeSeries": f"{_IDTA}TimeSeries/1/1",
    "SimulationModels": f"{_IDTA}SubmodelTemplate/SimulationModels/1/1",
    "AIModelNameplate": f"{_IDTA}SubmodelTemplate/AIModelNameplate/1/0",
    "AIDeployment": f"{_IDTA}SubmodelTemplate/AIDeployment/1/0",
}
"""``semanticId`` of each submodel."""

NAMEPLATE = {
    "URIOfTheProduct": _PRODUCT,
    "ManufacturerName": "0112/2///61987#ABA565#009",
    "ManufacturerProductDesignation": "0112/2///61987#ABA567#009",
    "AssetSpecificProperties": "0173-1#02-ABI218#003/0173-1#01-AGZ672#004",
    "ArbitraryProperty": "https://admin-shell.io/SMT/General/ArbitraryProp",
}
INTERFACE = {
    "Interface": f"{_AID}Interface",
    "EndpointMetadata": f"{_AID}EndpointMetadata",
    "InteractionMetadata": f"{_AID}InteractionMetadata",
    "PropertyDefinition": f"{_AID}PropertyDefinition",
    "key": f"{_AID}key",
    "min_max": f"{_AID}minMaxRange",
    "thing": "https://www.w3.org/2019/wot/td",
    "interaction": f"{_TD}InteractionAffordance",
    "title": f"{_TD}title",
    "base": f"{_TD}baseURI",
    "security": f"{_TD}hasSecurityConfiguration",
    "securityDefinitions": f"{_TD}definesSecurityScheme",
    "auto_sc": f"{_SECURITY}AutoSecurityScheme",
    "scheme": f"{_SECURITY}SecurityScheme",
    "properties": f"{_TD}PropertyAffordance",
    "observable": f"{_TD}isObservable",
    "forms": f"{_TD}hasForm",
    "href": f"{_HYPERMEDIA}hasTarget",
    "contentType": f"{_HYPERMEDIA}forContentType",
    "type": "https://www.w3.org/1999/02/22-rdf-syntax-ns#type",
    "unit": "https://schema.org/unitCode",
}
TIME_SERIES = {
    "Metadata": f"{_TIME}Metadata/1/1",
    "Name": f"{_TIME}Metadata/Name/1/1",
    "Description": f"{_TIME}Metadata/Description/1/1",
    "Record": f"{_TIME}Record/1/1",
    "Segments": f"{_TIME}Segments/1/1",
    "LinkedSegment": f"{_TIME}Segments/LinkedSegment/1/1",
    "SegmentName": f"{_TIME}Segment/Name/1/1",
    "Endpoint": f"{_TIME}Endpoint/1/1",
    "Query": f"{_TIME}Query/1/1",
}
SIMULATION = {
    "SimulationModel": f"{_SIM}SimulationModel/1/1",
    **{
        name: f"{_SIM}{name}/1/0"
        for name in (
            "Summary", "SimPurpose", "PosSimPurpose", "NegSimPurpose", "TypeOfModel", "ScopeOfModel", "Environment",
            "OperatingSystem", "SimulationTool", "SimToolName", "SolverAndTolerances", "FixedStepSize",
            "StepSizeControlNeeded", "StiffSolverNeeded", "ModelFile", "ModelFileType", "ModelFileVersion",
            "ModelVersionId", "DigitalFile", "ParamMethod", "ParamFile", "InitStateMethod",
        )
    },
}  # fmt: skip
MODEL = {
    "URIOfTheProduct": _PRODUCT,
    "Version": _VERSION,
    "Storage": f"{_MODEL}Storage/1/0",
    "KindOfLearning": f"{_MODEL}KindOfLearning/1/0",
    "Inputs": f"{_MODEL}Inputs/1/0",
    "KindOfInput": f"{_MODEL}Inputs/KindOfInput/1/0",
    "InputDimension": f"{_MODEL}Inputs/DimensionN/1/0",
    "InputSize": f"{_MODEL}Inputs/DimensionN/Size/1/0",
    "InputInformation": f"{_MODEL}Inputs/DimensionN/Information/1/0",
    "Outputs": f"{_MODEL}Outputs/1/0",
    "OutputDimension": f"{_MODEL}Outputs/DimensionN/1/0",
    "OutputSize": f"{_MODEL}Outputs/DimensionN/Size/1/0",
    "OutputResult": f"{_MODEL}Outputs/DimensionN/Result/1/0",
    "TrainingResults": f"{_MODEL}TrainingResults/1/0",
    "Result": f"{_MODEL}TrainingResults/Result/1/0",
    "Details": f"{_MODEL}Details/1/0",
    "FileExtension": f"{_MODEL}Details/DataEnding/1/0",
    "AIFramework": f"{_MODEL}Details/AIFramework/1/0",
    "ProgramLanguage": f"{_MODEL}Details/ProgramLanguage/1/0",
    "AITypeSpecificInformation": f"{_MODEL}AITypeSpecificInformation/1/0",
    "Type": f"{_MODEL}AITypeSpecificInformation/Type/1/0",
}
DEPLOYMENT = {
    "URIOfTheProduct": _PRODUCT,
    "Version": _VERSION,
    "ModelNameplateRef": f"{_DEPLOYMENT}ModelNameplateRef/1/0",
    "Storage": f"{_DEPLOYMENT}Storage/1/0",
    "Format": f"{_DEPLOYMENT}Storage/Format/1/0",
    "DeployedModel": f"{_DEPLOYMENT}Storage/DeployedModel/1/0",
    "Input": f"{_DEPLOYMENT}Input/1/0",
    "InputProperty": f"{_DEPLOYMENT}Input/InputProperty/1/0",
    "Output": f"{_DEPLOYMENT}Output/1/0",
    "OutputProperty": f"{_DEPLOYMENT}Output/OutputProperty/1/0",
}
