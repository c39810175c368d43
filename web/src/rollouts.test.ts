import { describe, expect, test } from "vitest";
import type { Comparison, Rollout, RolloutStep } from "./api";
import { iso, node, NOW } from "./fixtures";
import { byBadness, dotsOf, evalue, nextWords, promoteLabel, question, reach, share, spread, stepSize, stepsProblem, stepWords, touched } from "./rollouts";

const step = (over: Partial<RolloutStep>): RolloutStep => ({ bake: 120, state: "waiting", ...over });
const rollout = (over: Partial<Rollout>): Rollout => ({
  id: "r1", group: "default", from: 41, to: 42, strategy: "steps", state: "running", started: iso(NOW - 60_000), confirmed: ["a"], pending: [], step: 0,
  steps: [step({ nodes: 1, state: "baking", added: ["a"], bake_started: iso(NOW - 30_000) }), step({ percent: 50 }), step({ percent: 100 })], ...over,
});

test("sizes of steps", () => {
  expect(stepSize({ nodes: 1, bake: 0 })).toBe("1 node");
  expect(stepSize({ percent: 10, bake: 0 })).toBe("10\u00a0%");
  expect(stepSize({ percent: 100, bake: 0 })).toBe("all nodes");
  expect([reach({ percent: 10, bake: 0 }, 30), reach({ percent: 10, bake: 0 }, 31), reach({ percent: 1, bake: 0 }, 5), reach({ nodes: 9, bake: 0 }, 5)]).toEqual([3, 4, 1, 5]);
});

describe("what comes next", () => {
  test.each<[string, Rollout, string]>([
    ["baking", rollout({}), "The gate decides in 1\u00a0min at the earliest; when it passes, it goes on to 50\u00a0%."],
    ["asking", rollout({ steps: [step({ nodes: 1, state: "asking" }), step({ percent: 100 })] }), "More traffic, or your word, ends this: when promoted, it goes on to all nodes."],
    ["the last step", rollout({ step: 2, steps: [step({}), step({}), step({ percent: 100, state: "baking", bake_started: iso(NOW - 200_000) })] }), "The gate waits for enough evidence; when it passes, it is complete."],
    ["rolling", rollout({ steps: [step({ nodes: 1, state: "rolling", bake: 0 }), step({ percent: 100 })] }), "Nodes apply the revision; then it goes on to all nodes."],
    ["rolling back", rollout({ state: "rolling_back" }), "The nodes that had the revision are on their way back to revision 41."],
    ["all at once", rollout({ strategy: "all", steps: [], pending: ["b", "c"] }), "It ends when 2 more nodes have answered."],
    ["over", rollout({ state: "completed" }), ""],
  ])("%s", (_name, r, want) => expect(nextWords(r, NOW)).toBe(want));
  test("buttons say what they do", () => {
    expect(promoteLabel(rollout({}))).toBe("Promote to 50\u00a0%");
    expect(promoteLabel(rollout({ step: 2 }))).toBe("Promote: complete it");
    expect(touched(rollout({ confirmed: ["a", "b"], pending: ["b", "c"] }))).toBe(3);
  });
  test("a step's words", () => {
    expect(stepWords(step({ state: "baking", bake_started: iso(NOW - 100_000) }), NOW)).toBe("watched, 20\u00a0s left");
    expect(stepWords(step({ state: "passed", promoted_by: "admin" }), NOW)).toBe("promoted by admin");
  });
});

test("nodes as dots", () => {
  const r = rollout({ confirmed: ["a", "b"], pending: ["c"], refused: { d: "no such plugin" }, returned: ["b"] });
  expect(dotsOf(r).map((d) => `${d.node} ${d.state}`)).toEqual(["a confirmed", "b returned", "c pending", "d refused"]);
  expect(dotsOf(r, step({ added: ["d", "e"] }))).toEqual([{ node: "d", state: "refused", reason: "no such plugin" }, { node: "e", state: "waiting" }]);
});

test("comparisons", () => {
  const c = (what: string, over: Partial<Comparison>): Comparison => ({ what, canary_query: "", control_query: "", canary: { requests: 100, bad: 3 }, control: { requests: 0, bad: 0 }, evidence: 1, needed: 100, result: "pass", ...over });
  const list = [c("errors", {}), c("client_errors_404", { result: "fail" }), c("slower_than_p99", { evidence: 50, threshold: 0.5 }), c("x", { result: "inconclusive" })];
  expect(byBadness(list).map(question)).toEqual(["404 answers", "x", "slower than the control's p99 (500\u00a0ms)", "errors"]);
  expect([share(list[0]?.canary), share(list[0]?.control)]).toEqual(["3\u00a0% (3 of 100)", "no requests"]);
  expect([evalue(0.0737), evalue(971.4), evalue(50_000), evalue(3.2e7), evalue(Infinity)]).toEqual(["0.0737", "971", "50,000", "10⁷", "∞"]);
});

test("what is wrong with steps", () => {
  expect(stepsProblem([{ nodes: 1, bake: 60 }, { percent: 100, bake: 0 }])).toBe("");
  expect(stepsProblem([])).toContain("needs one");
  expect(stepsProblem([{ bake: 1 }])).toBe("Step 1 needs a number of nodes or a percentage.");
  expect(stepsProblem([{ percent: 100, bake: Number.NaN }])).toContain("time to watch");
  expect(stepsProblem([{ percent: 50, bake: 1 }])).toBe("The last step must be 100 %.");
});

test("which revision how many nodes run", () => {
  const on = (id: string, number: number) => node(id, { ledger: { desired: null, attempted: null, applied: { number, sha256: "x", time: iso(NOW) }, last_good: null } });
  expect(spread([on("a", 1), on("b", 2), on("c", 2), node("d", { group: "eu" }), node("e", { ledger: null })], "default").map((s) => [s.revision, s.nodes.length])).toEqual([[2, 2], [1, 1], [0, 1]]);
});
