// node-opcua as a server of a small plant's address space. In: first line of the standard input, JSON,
// {port, pki, certificate, key, uri, client, users: {name: password}, plate, hash, period_ms, points: [{node, kind, unit,
//   unit_id, low, high, value}]}; later lines {clock_s, missing: [node], units: {node: text}} make the plant anew with
// these faults.
// Out: one line {"endpoint": ...}; for each later line what the plant's variables held before it.
"use strict";
console.log = console.error; // the library tells of itself there
const readline = require("node:readline");

const lines = readline.createInterface({ input: process.stdin });
let task = null;
let answer = () => {};
lines.on("line", (line) => {
  if (task === null) {
    task = JSON.parse(line);
    serve().catch((error) => {
      console.error(error);
      process.exit(1);
    });
  } else {
    answer(JSON.parse(line));
  }
});
lines.on("close", () => process.exit(0));

const Real = Date;
let ahead_ms = 0;
global.Date = class extends Real {
  constructor(...words) {
    if (words.length === 0) super(Real.now() + ahead_ms);
    else super(...words);
  }
  static now() {
    return Real.now() + ahead_ms;
  }
};

async function serve() {
  const opcua = require("node-opcua");
  const { readCertificate } = require("node-opcua-crypto");
  const manager = new opcua.OPCUACertificateManager({ rootFolder: task.pki, automaticallyAcceptUnknownCertificate: false });
  await manager.initialize();
  await manager.trustCertificate(readCertificate(task.client));
  const server = new opcua.OPCUAServer({
    port: task.port,
    hostname: "127.0.0.1",
    alternateHostname: "127.0.0.1",
    resourcePath: "/foreign",
    serverInfo: { applicationUri: task.uri },
    serverCertificateManager: manager,
    certificateFile: task.certificate,
    privateKeyFile: task.key,
    securityModes: [opcua.MessageSecurityMode.SignAndEncrypt],
    securityPolicies: [opcua.SecurityPolicy.Aes256_Sha256_RsaPss, opcua.SecurityPolicy.Basic256Sha256],
    allowAnonymous: false,
    userManager: { isValidUser: (name, password) => name in task.users && task.users[name] === password },
    registerServerMethod: opcua.RegisterServerMethod.HIDDEN,
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const plant = space.registerNamespace("urn:twinloop:plant");
  const site = plant.addObject({ organizedBy: space.rootFolder.objects, nodeId: "s=Site", browseName: "Site" });
  const held = {};
  let beat = 0;
  const told = (node, dataType, get, set) =>
    plant.addVariable({
      componentOf: site,
      nodeId: `s=${node}`,
      browseName: node,
      dataType,
      accessLevel: set ? "CurrentRead | CurrentWrite" : "CurrentRead",
      userAccessLevel: set ? "CurrentRead | CurrentWrite" : "CurrentRead",
      minimumSamplingInterval: 10,
      value: {
        get: () => new opcua.Variant({ dataType: opcua.DataType[dataType], value: get() }),
        ...(set ? { set: (variant) => set(variant.value) } : {}),
      },
    });
  told("Site.Nameplate", "String", () => task.plate);
  told("Site.NameplateHash", "String", () => task.hash);
  told("Site.Clock", "Double", () => Date.now() / 1000);
  told("Site.Heartbeat", "UInt32", () => beat);
  told("Site.WallPeriod", "Double", () => task.period_ms / 1000);
  told("Site.WatchdogTripped", "Boolean", () => false);
  held["Site.ClientHeartbeat"] = 0;
  const take = (node) => (value) => {
    held[node] = value;
    return opcua.StatusCodes.Good;
  };
  told("Site.ClientHeartbeat", "UInt32", () => held["Site.ClientHeartbeat"], take("Site.ClientHeartbeat"));
  const made = [];
  const add = (point, units) => {
    held[point.node] = point.value;
    const judge = (value) => {
      if (point.kind !== "commanded") return opcua.StatusCodes.BadNotWritable;
      if (!(value >= point.low && value <= point.high)) return opcua.StatusCodes.BadOutOfRange;
      return take(point.node)(value);
    };
    const variable = told(point.node, "Double", () => held[point.node], point.kind === "commanded" ? judge : null);
    made.push(variable);
    plant.addVariable({
      propertyOf: variable,
      nodeId: `s=${point.node}.EURange`,
      browseName: { name: "EURange", namespaceIndex: 0 },
      dataType: "Range",
      value: { dataType: "ExtensionObject", value: new (require("node-opcua-types").Range)({ low: point.low, high: point.high }) },
    });
    const unit = new (require("node-opcua-types").EUInformation)({
      namespaceUri: "http://www.opcfoundation.org/UA/units/un/cefact",
      unitId: point.node in units ? -1 : point.unit_id,
      displayName: units[point.node] ?? point.unit,
      description: "",
    });
    plant.addVariable({
      propertyOf: variable,
      nodeId: `s=${point.node}.EngineeringUnits`,
      browseName: { name: "EngineeringUnits", namespaceIndex: 0 },
      dataType: "EUInformation",
      value: { dataType: "ExtensionObject", value: unit },
    });
  };
  const make = ({ clock_s = 0, missing = [], units = {} }) => {
    while (made.length) space.deleteNode(made.pop());
    ahead_ms = 1000 * clock_s;
    task.points.filter((point) => !missing.includes(point.node)).forEach((point) => add(point, units));
  };
  make({});
  setInterval(() => (beat += 1), task.period_ms);
  await server.start();
  answer = (faults) => {
    process.stdout.write(`${JSON.stringify(held)}\n`);
    make(faults);
  };
  process.stdout.write(`${JSON.stringify({ endpoint: server.getEndpointUrl() })}\n`);
}
