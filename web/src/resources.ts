// What each view reads beside the event stream: addresses of the API, with the
// types of their answers, and for each route the list of them. Pure functions;
// live.ts does the reading.

import { lacks } from "./access";
import type { ActivityList, Backend, Diff, Event, Group, JaegerList, JaegerTrace, License, List, Me, Node, Revision, Rollout, Token, Verdict } from "./api";
import { parseTime } from "./format";
import { parseWindow, type Route } from "./routes";
import { type Matrix, promString, type Range, stepFor } from "./series";
import { sinceQueries, type Undated } from "./since";

/** An address whose answer has the type T. */
export type Path<T> = string & { readonly answer?: T };

export interface PromAnswer<T> {
  data?: { result?: T[] };
}

/** One sample of an instant query. */
export interface Vector {
  metric: Record<string, string>;
  value: [number, string];
}

/** What is known of an address. */
export interface Loaded<T> {
  state: "loading" | "ready" | "failed";
  /** Kept while it is read again or cannot be had. */
  body: T | undefined;
  problem: string;
  status: number;
}

export const LOADING: Loaded<never> = { state: "loading", body: undefined, problem: "", status: 0 };

/** Reads a path of a data map with its type. */
export function loaded<T>(data: ReadonlyMap<string, Loaded<unknown>>, path: Path<T> | undefined): Loaded<T> {
  return path === undefined ? LOADING : ((data.get(path) as Loaded<T> | undefined) ?? LOADING);
}

const esc = encodeURIComponent;
export const groupsPath: Path<List<Group>> = "/v1/groups";
export const rolloutsPath: Path<List<Rollout>> = "/v1/rollouts";
export const licensePath: Path<License> = "/v1/license";
export const tokensPath: Path<List<Token>> = "/v1/tokens";
export const revisionsPath = (group: string): Path<List<Revision>> => `/v1/groups/${esc(group)}/revisions`;
export const rolloutPath = (id: string): Path<Rollout> => `/v1/rollouts/${esc(id)}`;
/** from and to of 0 are what the group should run and its newest revision. */
export const structuralDiffPath = (group: string, from: number, to: number): Path<Diff> => `/v1/groups/${esc(group)}/diff?from=${from}&to=${to}`;
/** The bytes of a configuration, as text. */
export const bytesPath = (sha256: string): Path<string> => `/v1/configs/${esc(sha256)}`;
export const backendPath = (id: string): Path<Backend> => `/v1/backends/${esc(id)}`;
export const nodeCellsPath = (id: string): Path<ActivityList> => `/v1/activity?by=node%2Cbackend&node=${esc(id)}`;
/** The newest events of one node. */
export const nodeEventsPath = (id: string): Path<List<Event>> => `/v1/events?node=${esc(id)}&limit=500`;
export const cellsPath: Path<ActivityList> = "/v1/activity?by=node%2Cbackend";
export const servicesPath: Path<JaegerList<string>> = "/jaeger/api/services";
export const operationsPath = (service: string): Path<JaegerList<string>> => `/jaeger/api/services/${esc(service)}/operations`;
export const tracePath = (id: string): Path<JaegerList<JaegerTrace>> => `/jaeger/api/traces/${esc(id)}`;

export const instantPath = (query: string): Path<PromAnswer<Vector>> => `/prometheus/api/v1/query?${new URLSearchParams({ query })}`;
export const rangePath = (query: string, r: Range): Path<PromAnswer<Matrix>> =>
  `/prometheus/api/v1/query_range?${new URLSearchParams({ query, start: String(r.start), end: String(r.end), step: String(r.step) })}`;

/** The endpoints of one node over the last five minutes: requests by status, and p99. */
export function nodeEndpointQueries(id: string): { counts: string; p99: string } {
  const series = `http_server_request_duration_seconds{instance=${promString(id)}}`;
  return {
    counts: `histogram_count(sum by (http_request_method, http_route, http_response_status_code) (increase(${series}[5m]))) > 0`,
    p99: `histogram_quantile(0.99, sum by (http_request_method, http_route) (rate(${series}[5m])))`,
  };
}

/** Seeds the sparklines of nodes from the store when there are at most this many; above it they grow as the page watches. */
export const MOST_SEEDED = 300;
/** Points of a sparkline, and seconds between them. */
export const SPARK = { points: 30, step: 10 };

/** The requests per second of each node, as the sparklines show them. */
export const SPARK_QUERY = `histogram_count(sum by (instance) (rate(node:http_server_request_duration_seconds[1m])))`;

/** The whole matrix is read up to this many cells; above it only failing cells are shown, which the stream brings. */
export const MOST_CELLS = 5000;

/** What a search for traces asks for, as it stands in the query of /traces. */
export interface TraceSearch {
  service: string;
  operation: string;
  /** "http.route=/users/{id} error=true". */
  tags: string;
  /** Durations such as 100ms. */
  min: string;
  max: string;
  limit: number;
}

const LIMITS = { least: 1, most: 500, usual: 50 };

export function parseTraceSearch(q: URLSearchParams): TraceSearch {
  const limit = Number(q.get("limit"));
  return {
    service: q.get("service") ?? "", operation: q.get("operation") ?? "", tags: q.get("tags") ?? "", min: q.get("min") ?? "", max: q.get("max") ?? "",
    limit: limit >= LIMITS.least && limit <= LIMITS.most ? Math.floor(limit) : LIMITS.usual,
  };
}

/** Reads "key=value key2="a b"" into an object; words without '=' are left out. */
export function parseTags(text: string): Record<string, string> {
  const tags: Record<string, string> = {};
  for (const m of text.matchAll(/([^\s=]+)=("[^"]*"|\S*)/g)) tags[m[1] ?? ""] = (m[2] ?? "").replaceAll('"', "");
  return tags;
}

/** The search behind a view of /traces. Live windows are a lookback, so that the address stays the same. */
export function tracesPath(q: URLSearchParams): Path<JaegerList<JaegerTrace>> {
  const s = parseTraceSearch(q);
  const p = new URLSearchParams({ limit: String(s.limit) });
  if (s.service) p.set("service", s.service);
  if (s.operation) p.set("operation", s.operation);
  if (s.min) p.set("minDuration", s.min);
  if (s.max) p.set("maxDuration", s.max);
  const tags = parseTags(s.tags);
  if (Object.keys(tags).length > 0) p.set("tags", JSON.stringify(tags));
  const w = parseWindow(q);
  if (w.kind === "fixed") {
    p.set("start", String(Math.floor(w.from * 1e6)));
    p.set("end", String(Math.ceil(w.to * 1e6)));
  } else p.set("lookback", `${w.seconds}s`);
  return `/jaeger/api/traces?${p}`;
}

/** The looks back for what has failed since before the page was opened. */
export const sincePaths = (u: Undated): Path<PromAnswer<Matrix>>[] => (sinceQueries(u) ?? []).map(({ query, range }) => rangePath(query, range));

/** Node ids as a PromQL matcher; at most so many, to keep the query short. */
const MOST_INSTANCES = 100;
const instances = (ids: readonly string[]): string => promString(ids.slice(0, MOST_INSTANCES).map((id) => id.replaceAll(/[\\^$.|?*+()[\]{}]/g, "\\$&")).join("|"));

/** The paths behind the two charts of a verdict: error ratio and p99 of one side. */
export interface EvidencePaths {
  errors: Path<PromAnswer<Matrix>>;
  p99: Path<PromAnswer<Matrix>>;
}

/** The charts of canary and control over the verdict's window; undefined without a window. */
export function evidencePaths(v: Verdict | undefined): { range: Range; canary: EvidencePaths; control: EvidencePaths | undefined } | undefined {
  const from = parseTime(v?.from);
  const to = parseTime(v?.at);
  if (!v || from === undefined || to === undefined || to - from < 5000 || !v.canaries?.length) return undefined;
  const step = Math.max(2, stepFor((to - from) / 1000));
  const range = { start: Math.floor(from / 1000 / step) * step, end: Math.ceil(to / 1000 / step) * step, step };
  const side = (ids: readonly string[]): EvidencePaths => {
    const of = (outcome: string): string => `sum(rate(node:http_server_request_duration_seconds{instance=~${instances(ids)},outcome${outcome}}[${Math.max(30, 2 * step)}s]))`;
    const all = of('!="limited"');
    return {
      errors: rangePath(`(histogram_count(${of('="error"')}) or vector(0)) / histogram_count(${all})`, range),
      p99: rangePath(`histogram_quantile(0.99, ${all})`, range),
    };
  };
  return { range, canary: side(v.canaries), control: v.control !== "before" && v.controls?.length ? side(v.controls) : undefined };
}

/** The step of a rollout whose evidence a view shows: the one asked for by ?step=, else the newest with a verdict, else the one under way. */
export function shownStep(r: Rollout, q: URLSearchParams): number {
  const steps = r.steps ?? [];
  const asked = q.get("step");
  if (asked !== null && steps[Number(asked)]) return Number(asked);
  const newest = steps.findLastIndex((s) => s.verdict);
  return newest >= 0 ? newest : Math.min(r.step ?? 0, Math.max(0, steps.length - 1));
}

/** One address to keep read. */
export interface Need {
  path: string;
  /** Milliseconds between readings; 0 reads once. */
  every: number;
  /** Answers that are not JSON. */
  text?: true;
}

/** The parts of the state that needs depend on. */
export interface NeedsOf {
  route: Route;
  me: Me | undefined;
  data: ReadonlyMap<string, Loaded<unknown>>;
  nodes: readonly Node[];
  backends: readonly Backend[];
  /** Seconds since 1970 when the page began to watch: where seeding ends. */
  opened: number;
  undated: Undated;
}

const FAST = 2000;
const SLOW = 10_000;

/** Lists what a view needs read now. What it depends on itself is read first. */
export function needs(s: NeedsOf): Need[] {
  const { route: { page, id, query }, me, data } = s;
  if (page === undefined || lacks(me, page)) return [];
  const once = (path: string): Need => ({ path, every: 0 });
  const each = (path: string, every = SLOW): Need => ({ path, every });
  switch (page) {
    case "overview":
      return sincePaths(s.undated).map(once);
    case "nodes":
      return s.nodes.length > 0 && s.nodes.length <= MOST_SEEDED ? [once(sparkSeedPath(s.opened))] : [];
    case "node": {
      const q = nodeEndpointQueries(id);
      return [each(nodeCellsPath(id)), each(instantPath(q.counts)), each(instantPath(q.p99)), each(nodeEventsPath(id), 60_000)];
    }
    case "backend":
      return [each(backendPath(id), 5000)];
    case "matrix":
      return s.backends.reduce((n, b) => n + b.callers, 0) <= MOST_CELLS ? [each(cellsPath, 5000)] : [];
    case "config":
      return [each(groupsPath, 5000), each(rolloutsPath, 5000)];
    case "group":
      return [each(groupsPath, 5000), each(revisionsPath(id), 5000), each(rolloutsPath, FAST), ...rolloutFormNeeds(id, query, data)];
    case "upload":
      return [each(revisionsPath(id)), each(groupsPath)];
    case "diff": {
      const revisions = loaded(data, revisionsPath(id)).body?.items ?? [];
      const [from, to] = [Number(query.get("from")), Number(query.get("to"))];
      const bytes = [from, to].flatMap((n) => revisions.find((r) => r.number === n)?.sha256 ?? []).map((sha): Need => ({ path: bytesPath(sha), every: 0, text: true }));
      return [once(revisionsPath(id)), once(structuralDiffPath(id, from, to)), ...bytes];
    }
    case "rollout": {
      const r = loaded(data, rolloutPath(id)).body;
      const v = r?.steps?.[r ? shownStep(r, query) : 0]?.verdict;
      const e = evidencePaths(v);
      const charts = e ? [e.canary, ...(e.control ? [e.control] : [])].flatMap((p) => [once(p.errors), once(p.p99)]) : [];
      return [each(rolloutPath(id), FAST), ...(r ? [once(revisionsPath(r.group))] : []), ...charts];
    }
    case "traces": {
      const service = query.get("service") ?? "";
      return [once(servicesPath), ...(service ? [once(operationsPath(service))] : []), once(tracesPath(query))];
    }
    case "trace":
      return [once(tracePath(id))];
    case "license":
      return [each(licensePath)];
    case "tokens":
      return [each(tokensPath), ...(me ? [once(groupsPath)] : [])];
    default:
      return [];
  }
}

/** The seed of the sparklines: what was before the page began to watch. */
export function sparkSeedPath(opened: number): Path<PromAnswer<Matrix>> {
  const end = Math.floor(opened / SPARK.step) * SPARK.step;
  return rangePath(SPARK_QUERY, { start: end - SPARK.points * SPARK.step, end, step: SPARK.step });
}

/** A rollout about to be started is compared with what the group runs. */
function rolloutFormNeeds(group: string, query: URLSearchParams, data: NeedsOf["data"]): Need[] {
  const to = Number(query.get("rollout"));
  const desired = loaded(data, groupsPath).body?.items?.find((g) => g.name === group)?.desired ?? 0;
  return to > 0 && desired > 0 && to !== desired ? [{ path: structuralDiffPath(group, desired, to), every: 0 }] : [];
}
