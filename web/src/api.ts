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
  lease: { issued: string; expires: string; state?: "valid" | "warning" | "fallen" } | null;
  ledger: Ledger | null;
  activity: Activity | null;
}

export interface Backend {
  id: string;
  address: string;
  port?: number;
  activity: Activity | null;
  /** How many nodes called it in the window. */
  callers: number;
  /** The backend's row of the node x backend matrix; in an overview only its cells with errors. */
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

export type RolloutState = "queued" | "running" | "paused" | "rolling_back" | "completed" | "failed" | "aborted" | "superseded";

/** Brings a group from one revision to another, or restarts its nodes one after the other (strategy "restart"). */
export interface Rollout {
  id: string;
  group: string;
  from: number;
  to: number;
  strategy: string;
  state: RolloutState;
  author?: string;
  started: string;
  ended?: string;
  confirmed: string[] | null;
  refused?: Record<string, string>;
  /** Told and not answered yet; a node of a later step is in no list. */
  pending: string[] | null;
  reason?: string;
  /** Of strategy "steps"; step is the index of the one under way. */
  steps?: RolloutStep[];
  step?: number;
  max_unavailable?: number;
  /** Nodes that confirmed the way back after a failure. */
  returned?: string[];
  report?: RolloutReport;
}

/** A step has nodes or percent; bake is in seconds, 0 means that it has no gate. */
export interface NewStep {
  nodes?: number;
  percent?: number;
  bake: number;
}

export interface NewRollout {
  revision: number;
  strategy: string;
  steps?: NewStep[];
}

export type StepState = "waiting" | "rolling" | "baking" | "asking" | "passed" | "failed";

export interface RolloutStep extends NewStep {
  state: StepState;
  added?: string[];
  started?: string;
  bake_started?: string;
  ended?: string;
  verdict?: Verdict;
  promoted_by?: string;
}

export type VerdictResult = "pass" | "fail" | "inconclusive";

/** What a gate found, with its evidence. */
export interface Verdict {
  result: VerdictResult;
  reason: string;
  at: string;
  /** "nodes", or "before" where the canaries' own minutes before the step took the place of others. */
  control?: string;
  canaries?: string[];
  controls?: string[];
  from?: string;
  baseline_from?: string;
  looks: number;
  test?: string;
  budget?: number;
  history?: History;
  comparisons?: Comparison[];
  left_out?: number;
  saturation?: Saturation[];
}

/** What answering costs a node of each side, in the mean; it fails by thresholds. */
export interface Saturation {
  /** cpu, in cores, or memory, in bytes. */
  what: string;
  canary: number;
  control: number;
  limit: number;
  canary_query: string;
  control_query: string;
  control_at: string;
  result: VerdictResult;
}

export interface Sample {
  requests: number;
  bad: number;
}

export interface Comparison {
  what: string;
  /** Empty for all traffic. */
  endpoint?: string;
  /** Seconds: what "slow" means here. */
  threshold?: number;
  canary_query: string;
  control_query: string;
  canary: Sample;
  control: Sample;
  baseline?: Sample;
  evidence: number;
  needed: number;
  upper?: number;
  result: VerdictResult;
  note?: string;
  exact?: ExactTest;
}

/** What the group served in the hours before, in spells of equal length. */
export interface History {
  from: string;
  to: string;
  /** PromQL for one spell, by outcome. */
  query: string;
  spell_seconds: number;
  spells: number;
  sum: Sample;
  /** The highest share of errors of a spell. */
  worst: number;
  used: boolean;
  note?: string;
}

/** The test of errors that is made once at a milestone of requests. */
export interface ExactTest {
  canary: Sample;
  control: Sample;
  fails_from: number;
  failed?: boolean;
  alpha: number;
  ceiling: number;
  usual?: number;
  power?: number;
}

export interface RolloutReport {
  before_from: string;
  before_to: string;
  after_from: string;
  after_to: string;
  all: ReportLine;
  endpoints?: ReportLine[];
  note?: string;
}

export interface ReportLine {
  endpoint?: string;
  before: ReportSide;
  after: ReportSide;
}

export interface ReportSide {
  requests: number;
  errors: number;
  client_errors: number;
  error_ratio: number | null;
  p50: number | null;
  p99: number | null;
}

/** A configuration line. */
export interface Group {
  name: string;
  format: string;
  /** What its nodes should run; 0 is their own file. */
  desired: number;
  revisions: number;
  nodes: number;
  activity: Activity | null;
}

export interface Revision {
  number: number;
  sha256: string;
  group: string;
  parent: number;
  author?: string;
  message?: string;
  created: string;
  bytes: number;
  warnings?: Fault[];
}

export interface CreatedRevision extends Revision {
  existing: boolean;
}

/** One reason why a configuration is refused. */
export interface Fault {
  stage: string;
  /** 1-based, absent when unknown. */
  line?: number;
  column?: number;
  path?: string;
  message: string;
}

export interface Diff {
  group: string;
  from: number;
  to: number;
  traffic_from: string;
  traffic_to: string;
  endpoints: EndpointDiff[] | null;
  service: FieldDiff[] | null;
  lines?: string;
  removes_traffic: boolean;
  note?: string;
}

export interface EndpointDiff {
  endpoint: string;
  change: string;
  fields?: FieldDiff[];
  traffic: { requests: number; requests_per_second: number; error_ratio: number; last_seen?: string } | null;
}

export interface FieldDiff {
  path: string;
  before?: string;
  after?: string;
}

/** Answer of GET /v1/license. */
export interface License extends LicenseSummary {
  id: string;
  customer: string;
  issuer: string;
  features: string[] | null;
  cluster?: string;
  not_before?: string;
  /** Seconds. */
  grace: number;
  /** How long a node goes on without a manager, in seconds. */
  lease_life: number;
  /** How many nodes have a lease in which state. */
  leases?: Record<string, number>;
  /** Nodes that keep their lease to its end and get no other. */
  over_seats?: number;
  /** Requests per second per node; null means no limit. */
  fallback_rate: number | null;
  problem?: string;
}

export interface Token {
  id: string;
  kind: "join" | "api";
  name?: string;
  role?: string;
  rights?: string[];
  group?: string;
  created: string;
  expires?: string;
  uses: number;
  /** 0 means no limit. */
  uses_max: number;
}

export interface CreatedToken extends Token {
  secret: string;
}

/** Answer of GET /v1/activity. */
export interface ActivityList {
  by: string;
  window: number;
  time: string;
  rows: ActivityRow[] | null;
}

/** Answers of Jaeger's query API. Times and durations are microseconds. */
export interface JaegerList<T> {
  data: T[] | null;
  errors?: { code: number; msg: string }[] | null;
}

export interface JaegerTrace {
  traceID: string;
  spans: JaegerSpan[];
  processes: Record<string, { serviceName: string; tags: JaegerTag[] | null }>;
  warnings?: string[] | null;
}

export interface JaegerSpan {
  spanID: string;
  operationName: string;
  references: { refType: string; traceID: string; spanID: string }[] | null;
  startTime: number;
  duration: number;
  tags: JaegerTag[] | null;
  logs?: { timestamp: number; fields: JaegerTag[] | null }[] | null;
  processID: string;
  warnings?: string[] | null;
}

export interface JaegerTag {
  key: string;
  type: string;
  value: string | number | boolean;
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
  /** Every reason why a configuration was refused. */
  faults?: Fault[];
}
