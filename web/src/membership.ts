// How a node stood over time, from the event log. Pure functions; times are
// Unix milliseconds.

import type { Event, NodeState } from "./api";
import { parseTime } from "./format";

export interface Stretch {
  /** undefined where the log does not reach. */
  state: NodeState | undefined;
  from: number;
  to: number;
}

const STATES: Record<string, NodeState> = {
  "node.joined": "alive", "node.alive": "alive", "node.suspect": "suspect", "node.unreachable": "unreachable", "node.down": "down", "node.left": "left",
};

/** The longest time that is shown. */
export const LOOK_MS = 24 * 3600_000;

/**
 * The stretches of one state each, oldest first, up to now; empty when the log
 * knows nothing. state is what the manager says now: it ends the last stretch
 * whatever the log has lost.
 */
export function stretches(events: readonly Event[], state: NodeState, now: number): Stretch[] {
  const changes = events
    .flatMap((e) => {
      const at = parseTime(e.time);
      const to = STATES[e.kind];
      return at === undefined || to === undefined ? [] : [{ id: e.id, at, to }];
    })
    .sort((a, b) => a.at - b.at || a.id - b.id);
  const first = changes[0];
  if (!first) return [];
  const from = Math.max(first.at, now - LOOK_MS);
  const out: Stretch[] = [];
  for (const [i, c] of changes.entries()) {
    const end = changes[i + 1]?.at ?? now;
    if (end < from) continue;
    const begin = Math.max(from, c.at);
    const last = out[out.length - 1];
    if (last?.state === c.to) last.to = end;
    else if (end > begin || i === changes.length - 1) out.push({ state: c.to, from: begin, to: end });
  }
  const last = out[out.length - 1];
  if (last && last.state !== state) out.push({ state, from: last.to, to: now });
  return out;
}

/** The share of the time that a node was alive, among what is known; undefined without. */
export function aliveShare(list: readonly Stretch[]): number | undefined {
  const all = list.reduce((n, s) => n + s.to - s.from, 0);
  if (all <= 0) return undefined;
  return list.reduce((n, s) => n + (s.state === "alive" || s.state === "suspect" ? s.to - s.from : 0), 0) / all;
}
