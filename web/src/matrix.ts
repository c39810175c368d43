// The node x backend matrix: which cells fail, in what order, and what that
// says. A column that fails from everywhere is a backend in trouble, a row that
// fails everything is a node that is cut off. Pure functions.

import type { Activity, ActivityRow, Backend, Node } from "./api";
import { and, exact, plural, roughly } from "./format";

export interface MatrixRow {
  id: string;
  name: string;
  /** Backends that fail from this node, and those it calls as far as known. */
  failing: number;
  calls: number;
  score: number;
}

export interface MatrixColumn {
  id: string;
  /** Nodes that see it fail, and nodes that call it. */
  failing: number;
  callers: number;
  score: number;
  /** Share of all calls to it that fail; null without calls. */
  ratio: number | null;
}

export interface MatrixFinding {
  text: string;
  node?: string;
  backend?: string;
  /** A person should look now. */
  bad: boolean;
}

export interface MatrixView {
  rows: MatrixRow[];
  columns: MatrixColumn[];
  /** By node and backend; a cell that is not there does not fail. */
  cells: Map<string, Activity>;
  findings: MatrixFinding[];
}

export const cellKey = (node: string, backend: string): string => `${node}\u0000${backend}`;

/** A cell fails when at least this share of its calls does, and counts as cut off from CUT on. */
const FAILS = 0.01;
const CUT = 0.5;
/** From this share of its callers on a backend fails from everywhere. */
const EVERYWHERE = 0.8;
/** What a cell of each shade adds to the badness of its row and column. */
const WEIGHTS = [0, 1, 4, 16, 64] as const;
/** At most this many findings are said. */
const MOST_FINDINGS = 5;

const ratioOf = (a: Activity | null | undefined): number => (a && a.requests > 0 ? a.errors / a.requests : 0);

/** How bad a cell is, for its color: 0 is fine, 4 is worst. */
export function shade(a: Activity | undefined): 0 | 1 | 2 | 3 | 4 {
  const r = ratioOf(a);
  if (r === 0) return 0;
  return r < FAILS ? 1 : r < 0.1 ? 2 : r < CUT ? 3 : 4;
}

/**
 * Orders the matrix by badness and says what it shows. cells are all that are
 * known: the whole matrix, or only its failing cells.
 */
export function matrixView(nodes: readonly Node[], backends: readonly Backend[], known: readonly ActivityRow[]): MatrixView {
  const cells = new Map<string, Activity>();
  const rows = new Map(nodes.map((n): [string, MatrixRow] => [n.id, { id: n.id, name: n.name || n.id, failing: 0, calls: 0, score: 0 }]));
  const columns = new Map(backends.map((b): [string, MatrixColumn] => [b.id, { id: b.id, failing: 0, callers: b.callers, score: 0, ratio: b.activity?.error_ratio ?? null }]));
  const cut = new Map<string, string[]>();
  for (const { node = "", backend = "", activity } of known) {
    const row = rows.get(node);
    const column = columns.get(backend);
    if (!row || !column || !activity || activity.requests === 0) continue;
    cells.set(cellKey(node, backend), activity);
    const r = ratioOf(activity);
    row.calls++;
    // By shade and not by the ratio itself: rows should not change places at each breath.
    const weight = WEIGHTS[shade(activity)];
    row.score += weight;
    column.score += weight;
    if (r < FAILS) continue;
    row.failing++;
    column.failing++;
    if (r >= CUT) cut.set(node, [...(cut.get(node) ?? []), backend]);
  }
  const byScore = (a: { score: number }, b: { score: number }): number => b.score - a.score;
  const view: MatrixView = {
    rows: [...rows.values()].sort((a, b) => byScore(a, b) || a.name.localeCompare(b.name, "en", { numeric: true })),
    columns: [...columns.values()].sort((a, b) => byScore(a, b) || a.id.localeCompare(b.id, "en", { numeric: true })),
    cells, findings: [],
  };
  view.findings = findings(view, cut);
  return view;
}

function findings(v: MatrixView, cut: ReadonlyMap<string, readonly string[]>): MatrixFinding[] {
  const found: MatrixFinding[] = [];
  const everywhere = new Set<string>();
  for (const c of v.columns) {
    if (c.failing === 0 || c.callers === 0 || c.failing < EVERYWHERE * c.callers) continue;
    everywhere.add(c.id);
    const what = c.ratio === null ? "fails" : c.ratio >= CUT ? `is failing: ${c.ratio >= 0.995 ? "all calls" : `${roughly(c.ratio)} of calls`},` : `fails ${roughly(c.ratio)} of calls`;
    found.push({ text: `${what} from ${c.callers === 1 ? "the one node that calls it" : c.failing === c.callers ? `all ${exact(c.callers)} nodes` : `${exact(c.failing)} of ${exact(c.callers)} nodes`}.`, backend: c.id, bad: c.ratio === null || c.ratio >= 0.1 });
  }
  // A node is cut off when what it cannot reach, others can.
  const partly = new Map<string, string[]>();
  for (const r of v.rows) {
    const own = (cut.get(r.id) ?? []).filter((b) => !everywhere.has(b));
    if (own.length === 0) continue;
    if (own.length > 1 && own.length === r.calls) found.push({ text: `is cut off: calls to all ${exact(own.length)} backends fail, from other nodes they do not.`, node: r.id, bad: true });
    else for (const b of own) partly.set(b, [...(partly.get(b) ?? []), r.name]);
  }
  for (const [backend, names] of partly) {
    found.push({ text: `cannot be reached from ${names.length <= 3 ? and(names) : plural(names.length, "node")}; other nodes can reach it.`, backend, bad: true });
  }
  return found.slice(0, MOST_FINDINGS);
}
