// Values for tests, each a full and calm thing that a test changes.

import type { Activity, Backend, Node, Overview } from "./api";

export const NOW = Date.UTC(2026, 10, 23, 2, 50, 0);

export const iso = (ms: number): string => new Date(ms).toISOString();

export function activity(over: Partial<Activity> = {}): Activity {
  return {
    window: 60, requests: 6000, requests_per_second: 100, errors: 0, error_ratio: 0, client_errors: 12, limited: 0,
    latency: { p50: 0.004, p95: 0.02, p99: 0.11 }, requests_total: 123456, last_seen: iso(NOW - 1000), ...over,
  };
}

export function node(id: string, over: Partial<Node> = {}): Node {
  const entry = { number: 7, sha256: "aa", time: iso(NOW - 3600_000) };
  return {
    id, name: id, group: "default", address: "10.0.0.1:8080", version: "0.1.0", managed: true, state: "alive", state_since: iso(NOW - 3600_000),
    conditions: [], lease: null, ledger: { desired: entry, attempted: entry, applied: entry, last_good: entry }, activity: activity(), ...over,
  };
}

export function backend(id: string, over: Partial<Backend> = {}): Backend {
  return { id, address: id.split(":")[0] ?? id, activity: activity(), callers: over.nodes?.filter((r) => (r.activity?.requests ?? 0) > 0).length ?? 0, ...over };
}

export function overview(nodes: Node[], backends: Backend[] = [], over: Partial<Overview["cluster"]> = {}): Overview {
  return {
    time: iso(NOW),
    cluster: {
      id: "c-1", version: "0.1.0", started: iso(NOW - 7200_000), managers: [], nodes: {}, unmanaged: nodes.filter((n) => !n.managed).length,
      activity: activity({ requests_total: 2000 }), license: { plan: "community", state: "valid", seats: 0, seats_used: nodes.length }, rollouts: [], ...over,
    },
    nodes, backends, recent: activity({ window: 2, requests: 200 }),
  };
}
