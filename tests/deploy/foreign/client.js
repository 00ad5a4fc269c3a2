// node-opcua as a client. In: JSON on the standard input,
// {endpoint, pki, server, scenarios: [{security, certificate, key, uri, user, password, userCertificate, userKey,
//   reads: [node], writes: [{node, type, value}], publishing_ms, subscriptions}]}
// Out: one line of JSON, an answer a scenario: {error} or {values, statuses, publishing_ms, refused_subscriptions}.
"use strict";
const fs = require("node:fs");
const opcua = require("node-opcua");
const { readCertificate } = require("node-opcua-crypto");

const special = { NaN: NaN, Infinity: Infinity };

async function certificates(root, server) {
  const manager = new opcua.OPCUACertificateManager({ rootFolder: root, automaticallyAcceptUnknownCertificate: false });
  await manager.initialize();
  await manager.trustCertificate(readCertificate(server));
  return manager;
}

function identity(scenario) {
  if (scenario.userCertificate) {
    return {
      type: opcua.UserTokenType.Certificate,
      certificateData: readCertificate(scenario.userCertificate),
      privateKey: fs.readFileSync(scenario.userKey, "ascii"),
    };
  }
  if (scenario.user) {
    return { type: opcua.UserTokenType.UserName, userName: scenario.user, password: scenario.password };
  }
  return { type: opcua.UserTokenType.Anonymous };
}

async function play(task, scenario, manager) {
  const secured = scenario.security !== "None";
  const client = opcua.OPCUAClient.create({
    applicationName: "foreign",
    applicationUri: scenario.uri,
    clientCertificateManager: manager,
    certificateFile: scenario.certificate,
    privateKeyFile: scenario.key,
    securityMode: secured ? opcua.MessageSecurityMode.SignAndEncrypt : opcua.MessageSecurityMode.None,
    securityPolicy: opcua.SecurityPolicy[scenario.security],
    endpointMustExist: false,
    requestedSessionTimeout: 20000,
    connectionStrategy: { maxRetry: 0, initialDelay: 50, maxDelay: 100 },
    defaultTransactionTimeout: 8000,
  });
  const answer = {};
  try {
    await client.connect(task.endpoint);
    const session = await client.createSession(identity(scenario));
    const namespaces = await session.readNamespaceArray();
    const index = namespaces.indexOf("urn:twinloop:plant");
    const id = (node) => (node.startsWith("i=") ? node : `ns=${index};s=${node}`);
    if (scenario.writes) {
      const rows = scenario.writes.map((row) => ({
        nodeId: id(row.node),
        attributeId: opcua.AttributeIds.Value,
        value: {
          sourceTimestamp: row.time ? new Date(row.time) : undefined,
          value: { dataType: opcua.DataType[row.type], value: row.value in special ? special[row.value] : row.value },
        },
      }));
      answer.statuses = (await session.write(rows)).map((status) => status.name);
    }
    if (scenario.reads) {
      const rows = scenario.reads.map((node) => ({ nodeId: id(node), attributeId: opcua.AttributeIds.Value }));
      const found = await session.read(rows);
      answer.values = found.map((value) => ({
        value: value.value.value,
        status: value.statusCode.name,
        time: value.sourceTimestamp,
      }));
    }
    if (scenario.publishing_ms !== undefined) {
      const wanted = {
        requestedPublishingInterval: scenario.publishing_ms,
        requestedLifetimeCount: 100,
        requestedMaxKeepAliveCount: 10,
        maxNotificationsPerPublish: 100,
        publishingEnabled: true,
        priority: 1,
      };
      const subscription = await session.createSubscription2(wanted);
      answer.publishing_ms = subscription.publishingInterval;
      const item = await subscription.monitor(
        { nodeId: id("Site.Heartbeat"), attributeId: opcua.AttributeIds.Value },
        { samplingInterval: 10, discardOldest: true, queueSize: 10 },
        opcua.TimestampsToReturn.Both,
      );
      answer.beats = await new Promise((resolve) => {
        const seen = [];
        const timer = setTimeout(() => resolve(seen), 5000);
        item.on("changed", (value) => {
          seen.push(value.value.value);
          if (seen.length === 3) {
            clearTimeout(timer);
            resolve(seen);
          }
        });
      });
      answer.refused_subscriptions = 0;
      for (let k = 1; k < (scenario.subscriptions ?? 1); k++) {
        try {
          await session.createSubscription2(wanted);
        } catch (error) {
          answer.refused_subscriptions += 1;
          answer.subscription_error = String(error.message);
        }
      }
    }
    await session.close(true);
  } catch (error) {
    answer.error = String(error.message ?? error);
  } finally {
    await client.disconnect().catch(() => {});
  }
  return answer;
}

async function main() {
  const task = JSON.parse(fs.readFileSync(0, "utf-8"));
  const manager = await certificates(task.pki, task.server);
  const answers = [];
  for (const scenario of task.scenarios) {
    answers.push(await play(task, scenario, manager));
  }
  await manager.dispose();
  process.stdout.write(`${JSON.stringify(answers)}\n`);
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
