// The JSON shapes of the operator API, as the Go package api writes them. Times
// are RFC 3339 strings, durations seconds. A field that Go omits when it is
// empty is optional here.

/** Live aggregates. null in place of it means that there are no data. */
export interface Activity {
  /** Length of the sliding window in seconds. */
  window: number;
  requests: number;
  requests_per_second: number;
  /** 5xx answers, time-outs and transport failures. */
  errors: number;
  /** null without requests. */
  error_ratio: number | null;
  client_errors: number;
  limited: number;
  /** null without requests. */
  latency: Latency | null;
  /** Since enrollment, over restarts. */
  requests_total: number;
  last_seen?: string;
}

/** Quantiles in seconds. */
export interface Latency {
  p50: number;
  p95: number;
  p99: number;
}

export interface ActivityRow {
  node?: string;
  backend?: string;
  group?: string;
  method?: string;
  route?: string;
  revision?: number | null;
  activity: Activity | null;
}

export type NodeState = "alive" | "suspect" | "unreachable" | "down" | "left";

export interface Condition {
  kind: string;
  cause: string;
  since: string;
}

export interface LedgerEntry {
  number: number;
  sha256: string;
  time: string;
  error?: string;
}

export interface Ledger {
  desired: LedgerEntry | null;
  attempted: LedgerEntry | null;
  applied: LedgerEntry | null;
  last_good: LedgerEntry | null;
}

export interface Node {
  id: string;
  name: string;
  group: string;
  labels?: Record<string, string>;
  address: string;
  gossip_address?: string;
  version: string;
  managed: boolean;
  state: NodeState;
  state_since?: string;
  state_cause?: string;
  conditions: Condition[] | null;
  enrolled?: string;
  last_poll?: string;
  lease: { issued: string; expires: string } | null;
  ledger: Ledger | null;
  activity: Activity | null;
}

export interface Backend {
  id: string;
  address: string;
  port?: number;
  activity: Activity | null;
  /** The backend's row of the node x backend matrix. */
  nodes?: ActivityRow[];
  endpoints?: string[];
}

export interface LicenseSummary {
  plan: string;
  state: "valid" | "warning" | "expired" | "missing";
  /** 0 means unlimited. */
  seats: number;
  seats_used: number;
  expires?: string;
}

export interface Rollout {
  id: string;
  group: string;
  from: number;
  to: number;
  strategy: string;
  state: "running" | "completed" | "failed" | "aborted" | "superseded";
  author?: string;
  started: string;
  ended?: string;
  confirmed: string[] | null;
  refused?: Record<string, string>;
  pending: string[] | null;
  reason?: string;
}

export interface Manager {
  name: string;
  /** host:port of the page and the operator API. */
  address: string;
  /** host:port of the node API: what a node's own file names. */
  node_address?: string;
  leader: boolean;
}

export interface Cluster {
  id: string;
  version: string;
  started: string;
  managers: Manager[] | null;
  nodes: Partial<Record<NodeState, number>> | null;
  unmanaged: number;
  activity: Activity | null;
  license: LicenseSummary;
  rollouts: Rollout[] | null;
}

/** One event of GET /v1/activity/stream. */
export interface Overview {
  /** The end of the step that recent covers: some seconds back. It is not the manager's clock. */
  time: string;
  cluster: Cluster;
  nodes: Node[] | null;
  backends: Backend[] | null;
  /** The newest step of the charts. */
  recent: Activity | null;
}

export interface Event {
  id: number;
  time: string;
  kind: string;
  group?: string;
  node?: string;
  actor: string;
  message: string;
  data?: unknown;
}

export interface List<T> {
  items: T[] | null;
}

/** Answer of GET /v1/me. */
export interface Me {
  name: string;
  role: "nobody" | "viewer" | "operator" | "admin";
  rights: string[] | null;
}

/** RFC 9457 problem document. */
export interface Problem {
  title: string;
  status: number;
  detail?: string;
}
