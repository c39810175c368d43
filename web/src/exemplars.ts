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

/** Chooses what is drawn: the slowest request of each piece of the window, oldest first. */
export function pickExemplars(answer: readonly ExemplarSeries[], from: number, to: number): Exemplar[] {
  const slots = new Map<number, Exemplar>();
  for (const { seriesLabels: l, exemplars } of answer) {
    for (const e of exemplars ?? []) {
      const trace = e.labels.trace_id ?? "";
      const value = Number(e.value);
      if (trace === "" || !(value > 0) || e.timestamp < from || e.timestamp > to) continue;
      const slot = Math.floor((SLOTS * (e.timestamp - from)) / Math.max(1, to - from));
      if (value <= (slots.get(slot)?.value ?? 0)) continue;
      const status = Number(l.http_response_status_code ?? 0);
      slots.set(slot, { time: e.timestamp, value, trace, name: [l.http_request_method, l.http_route ?? l.server_address].filter(Boolean).join(" "), failed: status >= 500 || (l.error_type ?? "") !== "" });
    }
  }
  return [...slots.values()].sort((a, b) => a.time - b.time);
}
