// Objects as JSON on standard input: each is validated by the models of its kind, and typed so that `tsc` finds fields that do not exist.
// Usage: node crds.mjs OUT.ts < objects.json
import { readFileSync, writeFileSync } from "node:fs";

const MODULES = {
  ScaledObject: "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
  PodMonitor: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
  PrometheusRule: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
};
const objects = JSON.parse(readFileSync(0, "utf8"));
const lines = [];
let wrong = 0;
for (const [number, object] of objects.entries()) {
  const module = MODULES[object.kind];
  if (!module) throw new Error(`no model for ${object.kind}`);
  const models = await import(module);
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    wrong += 1;
    console.error(`${object.kind} ${object.metadata?.name}: ${error.message}`);
  }
  lines.push(`import type { I${object.kind} as T${number} } from "${module}";`);
  lines.push(`export const o${number}: T${number} = ${JSON.stringify(object)};`);
}
writeFileSync(process.argv[2], lines.join("\n") + "\n");
process.exit(wrong ? 1 : 0);
