// What a rollout's numbers say: the path of its steps, what comes next and when,
// and what each button would do. Pure functions.

import type { Comparison, NewStep, Node, Rollout, RolloutState, RolloutStep, VerdictResult } from "./api";
import { exact, parseTime, plural, ratio, seconds, sig3, span } from "./format";

/** Whether a rollout is under way. */
export const underWay = (s: RolloutState): boolean => s === "queued" || s === "running" || s === "paused" || s === "rolling_back";

/** How a node stands in a rollout. */
export type DotState = "confirmed" | "pending" | "refused" | "waiting" | "returned";

export interface Dot {
  node: string;
  state: DotState;
  /** What a refusing node said. */
  reason?: string;
}

/** The nodes of a step, or of a rollout without steps, as dots. waiting counts those that no step has named yet. */
export function dotsOf(r: Rollout, step?: RolloutStep): Dot[] {
  const confirmed = new Set(r.confirmed ?? []);
  const returned = new Set(r.returned ?? []);
  const pending = new Set(r.pending ?? []);
  const ids = step ? (step.added ?? []) : [...confirmed, ...pending, ...Object.keys(r.refused ?? {})].filter((id, i, all) => all.indexOf(id) === i);
  return ids.map((node): Dot => {
    const reason = r.refused?.[node];
    if (returned.has(node)) return { node, state: "returned" };
    if (reason !== undefined) return { node, state: "refused", reason };
    return { node, state: confirmed.has(node) ? "confirmed" : pending.has(node) ? "pending" : "waiting" };
  });
}

/** How much of the group a step brings the revision to: "1 node", "10 %". */
export function stepSize(s: NewStep): string {
  if (s.nodes) return plural(s.nodes, "node");
  const p = s.percent ?? 100;
  return p >= 100 ? "all nodes" : `${p}\u00a0%`;
}

/** What a step is at, in words with its times. */
export function stepWords(s: RolloutStep, now: number): string {
  const baked = parseTime(s.bake_started);
  switch (s.state) {
    case "waiting":
      return s.bake > 0 ? `then watched for ${span(s.bake * 1000)}` : "no gate";
    case "rolling":
      return "nodes apply it";
    case "baking": {
      const left = baked === undefined ? s.bake * 1000 : baked + s.bake * 1000 - now;
      return left > 0 ? `watched, ${span(left)} left` : "watched, waiting for evidence";
    }
    case "asking":
      return "holds: too little evidence";
    case "passed":
      return s.promoted_by ? `promoted by ${s.promoted_by}` : s.bake > 0 ? "passed its gate" : "confirmed";
    case "failed":
      return "failed";
  }
}

/** How many nodes a step would have the revision on, of a group of size nodes. Percent is rounded up. */
export function reach(s: NewStep, size: number): number {
  return Math.min(size, s.nodes ? s.nodes : Math.max(1, Math.ceil((size * (s.percent ?? 100)) / 100 - 1e-9)));
}

/** What happens next, in one sentence. */
export function nextWords(r: Rollout, now: number): string {
  const step = r.steps?.[r.step ?? 0];
  const after = r.steps?.[(r.step ?? 0) + 1];
  switch (r.state) {
    case "queued":
      return "It waits for the end of the rollout before it.";
    case "paused":
      return "It goes no further until it is resumed; a failing gate still rolls it back.";
    case "rolling_back":
      return `The nodes that had the revision are on their way back to ${revisionName(r.from)}.`;
    case "running":
      break;
    default:
      return "";
  }
  if (!step) return r.pending?.length ? `It ends when ${plural(r.pending.length, "more node has", "more nodes have")} answered.` : "";
  const then = after ? `it goes on to ${stepSize(after)}` : "it is complete";
  switch (step.state) {
    case "rolling":
      return `Nodes apply the revision; ${step.bake > 0 ? `then they are watched for ${span(step.bake * 1000)}` : `then ${then}`}.`;
    case "baking": {
      const end = (parseTime(step.bake_started) ?? now) + step.bake * 1000;
      return end > now ? `The gate decides in ${span(end - now)} at the earliest; when it passes, ${then}.` : `The gate waits for enough evidence; when it passes, ${then}.`;
    }
    case "asking":
      return `More traffic, or your word, ends this: when promoted, ${then}.`;
    default:
      return "";
  }
}

/** "revision 7", or "the nodes' own files" for 0. */
export const revisionName = (n: number): string => (n === 0 ? "the nodes' own files" : `revision ${n}`);

/** What promoting does, as its button says it. */
export function promoteLabel(r: Rollout): string {
  const after = r.steps?.[(r.step ?? 0) + 1];
  return after ? `Promote to ${stepSize(after)}` : "Promote: complete it";
}

/** Nodes that have the revision, or are about to: those that a way back moves. */
export const touched = (r: Rollout): number => new Set([...(r.confirmed ?? []), ...(r.pending ?? [])]).size;

const QUESTIONS: Record<string, string> = {
  errors: "errors",
  client_errors_401: "401 answers",
  client_errors_403: "403 answers",
  client_errors_404: "404 answers",
  client_errors_other: "other 4xx answers",
  slower_than_p50: "slower than the control's median",
  slower_than_p99: "slower than the control's p99",
  client_errors: "4xx answers",
};

/** Failing ones first, then undecided ones, then by how close they are to failing. */
export function byBadness(list: readonly Comparison[]): Comparison[] {
  const rank: Record<VerdictResult, number> = { fail: 0, inconclusive: 1, pass: 2 };
  const near = (c: Comparison): number => c.evidence / Math.max(1, c.needed);
  return [...list].sort((a, b) => rank[a.result] - rank[b.result] || near(b) - near(a));
}

const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** An e-value: 0.24, 971, 50,000, 10⁷. */
export function evalue(e: number): string {
  if (!Number.isFinite(e)) return "∞";
  if (e < 1e6) return e >= 1000 ? exact(e) : sig3(e);
  return `10${[...String(Math.floor(Math.log10(e)))].map((d) => SUPERSCRIPT[Number(d)]).join("")}`;
}

/** What a comparison asks, in words. */
export function question(c: Comparison): string {
  const words = QUESTIONS[c.what] ?? c.what.replaceAll("_", " ");
  return c.threshold ? `${words} (${seconds(c.threshold)})` : words;
}

/** A sample as a share with its numbers. */
export function share(s: { requests: number; bad: number } | undefined): string {
  if (!s || s.requests <= 0) return "no requests";
  return `${ratio(s.bad / s.requests)} (${exact(s.bad)} of ${exact(s.requests)})`;
}

export const VERDICT_WORDS: Record<VerdictResult, string> = { pass: "pass", fail: "fail", inconclusive: "inconclusive" };

/** Steps as the form begins with them: the manager's default. */
export const DEFAULT_STEPS: readonly NewStep[] = [
  { nodes: 1, bake: 120 },
  { percent: 10, bake: 120 },
  { percent: 50, bake: 120 },
  { percent: 100, bake: 120 },
];

/** What is wrong with steps, in one sentence; empty when nothing is. */
export function stepsProblem(steps: readonly NewStep[]): string {
  if (steps.length === 0) return "A rollout in steps needs one at least.";
  for (const [i, s] of steps.entries()) {
    if (!((s.nodes ?? 0) > 0 !== (s.percent ?? 0) > 0)) return `Step ${i + 1} needs a number of nodes or a percentage.`;
    if ((s.percent ?? 0) > 100) return `Step ${i + 1}: at most 100 %.`;
    if (!(s.bake >= 0)) return `Step ${i + 1} needs a time to watch, 0 for none.`;
  }
  const last = steps[steps.length - 1];
  return last?.percent === 100 ? "" : "The last step must be 100 %.";
}

/** How many nodes of a group run each revision, by what they confirmed. */
export function spread(nodes: readonly Node[], group: string): { revision: number; nodes: Node[] }[] {
  const by = new Map<number, Node[]>();
  for (const n of nodes) {
    if (!n.managed || n.group !== group || n.state === "left") continue;
    const r = n.ledger?.applied?.number ?? 0;
    by.set(r, [...(by.get(r) ?? []), n]);
  }
  return [...by].map(([revision, list]) => ({ revision, nodes: list })).sort((a, b) => b.revision - a.revision);
}
