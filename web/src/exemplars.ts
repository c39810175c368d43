// Exemplars: single requests that a histogram remembers with their traces. Pure
// functions from Prometheus's answer to the points on the latency chart.

import type { Node } from "./api";
import type { Route } from "./routes";
import { promString, splitBackend } from "./series";

/** Answer of query_exemplars. */
export interface ExemplarSeries {
  seriesLabels: Record<string, string>;
  exemplars: { labels: Record<string, string>; value: string; timestamp: number }[] | null;
}

export interface Exemplar {
  /** Unix seconds. */
  time: number;
  /** Seconds. */
  value: number;
  trace: string;
  /** The route, or the backend's address. */
  name: string;
  failed: boolean;
}

/** Of larger fleets only the slowest so many nodes are asked for: the answer brings all that a series remembers. */
const MOST_NODES = 20;
/** One point for each of so many pieces of the window, the slowest there. */
const SLOTS = 36;

/** The series whose exemplars belong on a view's latency chart; undefined where there are none. */
export function exemplarQuery({ page, id }: Route, nodes: readonly Node[]): string | undefined {
  const server = "http_server_request_duration_seconds";
  const of = (list: readonly Node[]): string => {
    if (list.length <= MOST_NODES) return "";
    const slow = [...list].sort((a, b) => (b.activity?.latency?.p99 ?? 0) - (a.activity?.latency?.p99 ?? 0)).slice(0, MOST_NODES);
    return `instance=~${promString(slow.map((n) => n.id.replaceAll(/[\\^$.|?*+()[\]{}]/g, "\\$&")).join("|"))},`;
  };
  switch (page) {
    case "overview":
      return `${server}{${of(nodes)}}`;
    case "group":
      return `${server}{group=${promString(id)},${of(nodes.filter((n) => n.group === id))}}`;
    case "node":
      return `${server}{instance=${promString(id)}}`;
    case "backend": {
      const { address, port } = splitBackend(id);
      return `http_client_request_duration_seconds{server_address=${promString(address)},server_port=${promString(port)},${of(nodes)}}`;
    }
    default:
      return undefined;
  }
}

/** A window up to so long is read whole; of a longer one pieces. In seconds. */
const WHOLE_S = 900;
const PIECES = { count: 12, length: 20 };
/** Nodes send what happened up to so long ago. */
const LATE_S = 30;

/**
 * The spans of time to ask for, each from and to in Unix seconds: what came since
 * the last reading (0 for none), else the window, or pieces of it where the
 * answer would be more than a chart can hold.
 */
export function spansToRead(from: number, to: number, read: number): [number, number][] {
  if (read > from) return [[Math.max(from, read - LATE_S), to]];
  if (to - from <= WHOLE_S) return [[from, to]];
  return Array.from({ length: PIECES.count }, (_, i): [number, number] => {
    const end = from + ((i + 1) * (to - from)) / PIECES.count;
    return [Math.floor(end - PIECES.length), Math.ceil(end)];
  });
}

/** Chooses what is drawn of an answer and of what is drawn already: the slowest request of each piece of the window, oldest first. */
export function pickExemplars(answer: readonly ExemplarSeries[], from: number, to: number, have: readonly Exemplar[] = []): Exemplar[] {
  const width = Math.max(1, (to - from) / SLOTS);
  const slots = new Map<number, Exemplar>();
  const offer = (e: Exemplar): void => {
    if (e.trace === "" || !(e.value > 0) || e.time < from || e.time > to) return;
    const slot = Math.floor(e.time / width); // on a grid that stays while the window moves
    if (e.value > (slots.get(slot)?.value ?? 0)) slots.set(slot, e);
  };
  for (const e of have) offer(e);
  for (const { seriesLabels: l, exemplars } of answer) {
    const status = Number(l.http_response_status_code ?? 0);
    const name = [l.http_request_method, l.http_route ?? l.server_address].filter(Boolean).join(" ");
    const failed = status >= 500 || (l.error_type ?? "") !== "";
    for (const e of exemplars ?? []) offer({ time: e.timestamp, value: Number(e.value), trace: e.labels.trace_id ?? "", name, failed });
  }
  return [...slots.values()].sort((a, b) => a.time - b.time);
}
