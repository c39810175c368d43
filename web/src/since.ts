// Since when something fails. The stream tells only what is so now; what began
// before this page was opened is found in the store. Pure functions.

import type { Item } from "./health";
import { joinBackend, promString, type Matrix, type Range, splitBackend } from "./series";

/** From this error ratio on a moment counts as failing, as in the list of what needs attention. */
const FAILS = 0.01;
/** A trouble that pauses for less than this is still the same one. */
const PAUSE_S = 180;
/** Subjects asked about at once, the worst ones. */
const MOST = 20;

/** How far back is looked, first finely, then coarsely; in seconds. */
export const LOOKS = [
  { name: "fine", span: 3600, step: 30, range: 60 },
  { name: "coarse", span: 86_400, step: 600, range: 600 },
] as const;

/** What has no beginning yet and could have one in the store: backends and nodes that answer with errors. */
export interface Undated {
  backends: readonly string[];
  nodes: readonly string[];
  /** When the newest of them was first seen, Unix seconds: where the look back ends. */
  at: number;
}

export const NONE_UNDATED: Undated = { backends: [], nodes: [], at: 0 };

const idOf = (key: string): { what: "backends" | "nodes"; id: string } | undefined => {
  if (key.startsWith("backend/")) return { what: "backends", id: key.slice("backend/".length) };
  if (key.startsWith("node/") && key.endsWith("/errors")) return { what: "nodes", id: key.slice("node/".length, -"/errors".length) };
  return undefined;
};

/** Collects what is undated; the same value comes back while nothing new is among it. */
export function undatedOf(items: readonly Item[], before: Undated, now: number): Undated {
  const found = { backends: [] as string[], nodes: [] as string[] };
  for (const i of items) {
    const x = i.since === undefined ? idOf(i.key) : undefined;
    if (x && found[x.what].length < MOST) found[x.what].push(x.id);
  }
  const known = (what: "backends" | "nodes"): boolean => found[what].every((id) => before[what].includes(id));
  if (known("backends") && known("nodes")) return before;
  return { ...found, at: Math.floor(now / 1000) };
}

const oneOf = (values: readonly string[]): string => promString([...new Set(values)].map((v) => v.replaceAll(/[\\^$.|?*+()[\]{}]/g, "\\$&")).join("|"));

/** The error ratios of what is undated, one series each, and the ranges to ask for; undefined when there is nothing. */
export function sinceQueries(u: Undated): { query: string; range: Range }[] | undefined {
  if (u.backends.length + u.nodes.length === 0) return undefined;
  const parts = u.backends.map(splitBackend);
  return LOOKS.map(({ span, step, range }) => {
    const end = Math.floor(u.at / step) * step;
    const ratio = (rollup: string, by: string, matchers: string): string => {
      const of = (outcome: string): string => `histogram_count(sum by (${by}) (rate(${rollup}{${matchers},outcome${outcome}}[${range}s])))`;
      return `${of('="error"')} / ${of('!="limited"')}`;
    };
    const asked = [
      ...(u.backends.length > 0 ? [ratio("backend:http_client_request_duration_seconds", "server_address, server_port", `server_address=~${oneOf(parts.map((p) => p.address))},server_port=~${oneOf(parts.map((p) => p.port))}`)] : []),
      ...(u.nodes.length > 0 ? [ratio("node:http_server_request_duration_seconds", "instance", `instance=~${oneOf(u.nodes)}`)] : []),
    ];
    return { query: asked.join(" or "), range: { start: end - span, end, step } };
  });
}

/** When a trouble began. open: it is as old as what was looked at, or older. */
export interface Began {
  at: number;
  open: boolean;
}

/** Walks back from the end of one series to where its newest run of failing moments begins; undefined when it does not fail at its end. Unix milliseconds. */
export function runStart(values: readonly (readonly [number, string])[], r: Range): Began | undefined {
  let first: number | undefined;
  for (let i = values.length - 1; i >= 0; i--) {
    const [t, text] = values[i] as readonly [number, string];
    if (Number(text) < FAILS || Number.isNaN(Number(text))) continue;
    if ((first ?? r.end) - t > PAUSE_S + r.step) break;
    first = t;
  }
  return first === undefined ? undefined : { at: first * 1000, open: first - r.start <= PAUSE_S + r.step };
}

/** Puts the looks together: by key of an item, when it began. What the fine look does not show began just before it was seen. */
export function began(u: Undated, looks: readonly (readonly Matrix[] | undefined)[]): Map<string, Began> {
  const found = new Map<string, Began>();
  const ranges = sinceQueries(u);
  ranges?.forEach(({ range }, i) => {
    for (const series of looks[i] ?? []) {
      const b = runStart(series.values ?? [], range);
      if (!b) continue;
      const { instance, server_address: address = "", server_port: port = "" } = series.metric;
      const key = instance !== undefined ? `node/${instance}/errors` : `backend/${joinBackend(address, port)}`;
      const have = found.get(key);
      // A finer look is more exact, as long as it saw the beginning.
      if (!have || have.open) found.set(key, have && b.at > have.at ? have : b);
    }
  });
  if (looks[0] !== undefined) {
    const seen: Began = { at: u.at * 1000, open: false };
    for (const key of [...u.backends.map((id) => `backend/${id}`), ...u.nodes.map((id) => `node/${id}/errors`)]) {
      if (!found.has(key)) found.set(key, seen);
    }
  }
  return found;
}

/** Fills in what the store knows of the beginnings. */
export function dateItems(items: readonly Item[], b: ReadonlyMap<string, Began>): readonly Item[] {
  if (b.size === 0) return items;
  return items.map((i) => {
    const known = i.since === undefined ? b.get(i.key) : undefined;
    return known ? { ...i, since: known.at, ...(known.open ? { longer: true } : {}) } : i;
  });
}
