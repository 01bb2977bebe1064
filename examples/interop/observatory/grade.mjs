// Reads one JSON request from stdin, {"hosts": ["127.0.0.1:1", …], "policies": ["default-src 'self'", …]}, and prints
// what the two graders say: {"scans": […], "findings": [[…], …]}.
import { scan } from "@mdn/mdn-http-observatory/src/scanner/index.js";
import { CspEvaluator } from "csp_evaluator/dist/evaluator.js";
import { CspParser } from "csp_evaluator/dist/parser.js";
import { text } from "node:stream/consumers";

const { hosts = [], policies = [] } = JSON.parse(await text(process.stdin));

const scans = [];
for (const host of hosts) {
  const { scan: outcome, tests } = await scan(host);
  const results = {};
  for (const [name, test] of Object.entries(tests)) {
    results[name] = { result: test.result, points: test.scoreModifier };
  }
  scans.push({ score: outcome.score, grade: outcome.grade, algorithm: outcome.algorithmVersion, results });
}

const findings = policies.map((policy) =>
  new CspEvaluator(new CspParser(policy).csp).evaluate().map((f) => ({
    severity: f.severity,
    directive: f.directive,
    description: f.description,
  })),
);

console.log(JSON.stringify({ scans, findings }));
