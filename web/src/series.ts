// From PromQL to what the charts draw: the queries, their steps, and the
// arithmetic on the answers. Pure functions; times are Unix seconds.

import type { Activity } from "./api";
import type { Route, Window } from "./routes";

/** What charts are about: a roll-up, and which of its series. */
export interface Scope {
  rollup: string;
  /** PromQL matchers, each followed by a comma. */
  matchers: string;
  /** The stream brings the same numbers: they are drawn while the history cannot be read. */
  live: boolean;
  calls: boolean;
}

/** A string as PromQL writes it. */
export const promString = (s: string): string => JSON.stringify(s);

/** What the charts of a view are about; undefined for views without. */
export function scopeOf({ page, id }: Route): Scope | undefined {
  switch (page) {
    case "overview":
      return { rollup: "group:http_server_request_duration_seconds", matchers: "", live: true, calls: false };
    case "group":
      return { rollup: "group:http_server_request_duration_seconds", matchers: `group=${promString(id)},`, live: false, calls: false };
    case "node":
      return { rollup: "node:http_server_request_duration_seconds", matchers: `instance=${promString(id)},`, live: false, calls: false };
    case "backend": {
      const { address, port } = splitBackend(id);
      return { rollup: "backend:http_client_request_duration_seconds", matchers: `server_address=${promString(address)},server_port=${promString(port)},`, live: false, calls: true };
    }
    default:
      return undefined;
  }
}

/** Takes a backend's id apart, as net.JoinHostPort put it together. */
export function splitBackend(id: string): { address: string; port: string } {
  const m = /^(?:\[(.*)\]|(.*)):(\d+)$/s.exec(id);
  return m ? { address: m[1] ?? m[2] ?? "", port: m[3] ?? "" } : { address: id, port: "" };
}

/** Puts an id together again. */
export const joinBackend = (address: string, port: string): string => (port === "" ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

/** Roll-ups are written every 10 s; a rate needs two of them within its range, whatever the phase. */
const MIN_RANGE = 30;

/** What the three charts draw, on one time axis. null is a gap: nothing is known of that moment. */
export interface ChartData {
  /** Unix seconds, rising, evenly spaced. */
  time: number[];
  from: number;
  to: number;
  /** Requests per second by outcome. */
  ok: (number | null)[];
  clientError: (number | null)[];
  error: (number | null)[];
  limited: (number | null)[];
  /** Errors among requests that were not limited; a gap without requests. */
  errorRatio: (number | null)[];
  /** Seconds; a gap without requests. */
  p50: (number | null)[];
  p95: (number | null)[];
  p99: (number | null)[];
}

/** The steps that may stand between two points, in seconds. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600] as const;

/** Aim for this many points: about one for each six pixels of a chart. */
const POINTS = 150;

/** The step for a span of so many seconds: the smallest that keeps within POINTS. */
export function stepFor(span: number): number {
  return STEPS.find((s) => span / s <= POINTS) ?? Math.ceil(span / POINTS / 3600) * 3600;
}

/** How often the charts of a window are read again, in milliseconds. */
export function refreshEvery(w: Window): number {
  if (w.kind === "fixed") return 60_000;
  return Math.min(60_000, Math.max(5_000, stepFor(w.seconds) * 1000));
}

export interface Range {
  start: number;
  end: number;
  step: number;
}

/** The range to ask for. Ends are multiples of the step, so that points stay where they are from one reading to the next. */
export function rangeOf(w: Window, now: number): Range {
  const [from, to] = w.kind === "fixed" ? [w.from, w.to] : [now - w.seconds, now];
  const step = stepFor(to - from);
  return { start: Math.ceil(from / step) * step, end: Math.floor(to / step) * step, step };
}

/** The two queries behind the charts; an operator can run them again as they are. */
export function queries(step: number, { rollup, matchers }: Pick<Scope, "rollup" | "matchers">): { rates: string; quantiles: string } {
  const range = `${Math.max(MIN_RANGE, 2 * step)}s`;
  const all = `sum(rate(${rollup}{${matchers}outcome!="limited"}[${range}]))`;
  const quantile = (q: number, name: string): string => `label_replace(histogram_quantile(${q}, ${all}), "quantile", "${name}", "", "")`;
  return {
    rates: `histogram_count(sum by (outcome) (rate(${rollup}${matchers === "" ? "" : `{${matchers.slice(0, -1)}}`}[${range}])))`,
    quantiles: [quantile(0.5, "p50"), quantile(0.95, "p95"), quantile(0.99, "p99")].join(" or "),
  };
}

/** The answer of query_range, as Prometheus gives it. */
export interface Matrix {
  metric: Record<string, string>;
  values?: [number, string][];
}

/** Puts a matrix on the range's grid, one column for each value of label. NaN and missing points are null. */
export function onGrid(matrix: readonly Matrix[], label: string, r: Range): Map<string, (number | null)[]> {
  const n = gridLength(r);
  const columns = new Map<string, (number | null)[]>();
  for (const series of matrix) {
    const column = new Array<number | null>(n).fill(null);
    for (const [t, text] of series.values ?? []) {
      const i = Math.round((t - r.start) / r.step);
      const v = Number(text);
      if (i >= 0 && i < n && Number.isFinite(v)) column[i] = v;
    }
    columns.set(series.metric[label] ?? "", column);
  }
  return columns;
}

function gridLength(r: Range): number {
  return Math.max(0, Math.floor((r.end - r.start) / r.step) + 1);
}

/**
 * Builds the charts' data. A moment without any outcome is a gap; where at
 * least one outcome is known, the others are zero: an outcome that never
 * happened has no series.
 */
export function chartData(rates: readonly Matrix[], quantiles: readonly Matrix[], r: Range, w: Window, now: number): ChartData {
  const byOutcome = onGrid(rates, "outcome", r);
  const byQuantile = onGrid(quantiles, "quantile", r);
  const time = Array.from({ length: gridLength(r) }, (_, i) => r.start + i * r.step);
  const known = time.map((_, i) => [...byOutcome.values()].some((c) => c[i] !== null));
  const outcome = (name: string): (number | null)[] => {
    const column = byOutcome.get(name);
    return time.map((_, i) => (known[i] ? (column?.[i] ?? 0) : null));
  };
  const [ok, clientError, error, limited] = [outcome("ok"), outcome("client_error"), outcome("error"), outcome("limited")];
  const errorRatio = time.map((_, i) => {
    const counted = (ok[i] ?? 0) + (clientError[i] ?? 0) + (error[i] ?? 0);
    return counted > 0 ? (error[i] ?? 0) / counted : null;
  });
  const quantile = (name: string): (number | null)[] => byQuantile.get(name) ?? time.map(() => null);
  const [from, to] = w.kind === "fixed" ? [w.from, w.to] : [r.end - w.seconds, Math.max(r.end, Math.min(now, r.end + r.step))];
  return { time, from, to, ok, clientError, error, limited, errorRatio, p50: quantile("p50"), p95: quantile("p95"), p99: quantile("p99") };
}

/** One newest step, as the event stream brings it. */
export interface RecentPoint {
  time: number;
  activity: Activity;
}

/**
 * The same charts from the steps that this page saw itself: used while the
 * history cannot be read, so that what is known is still drawn.
 */
export function chartFromRecent(points: readonly RecentPoint[], seconds: number, now: number): ChartData {
  const from = now - seconds;
  const seen = points.filter((p) => p.time >= from);
  const column = (f: (a: Activity) => number | null): (number | null)[] => seen.map((p) => f(p.activity));
  const per = (n: number, a: Activity): number => (a.window > 0 ? n / a.window : 0);
  return {
    time: seen.map((p) => p.time),
    from,
    to: now,
    ok: column((a) => per(Math.max(0, a.requests - a.errors - a.client_errors - a.limited), a)),
    clientError: column((a) => per(a.client_errors, a)),
    error: column((a) => per(a.errors, a)),
    limited: column((a) => per(a.limited, a)),
    errorRatio: column((a) => a.error_ratio),
    p50: column((a) => a.latency?.p50 ?? null),
    p95: column((a) => a.latency?.p95 ?? null),
    p99: column((a) => a.latency?.p99 ?? null),
  };
}

/** Adds columns up from the first, for a stacked chart; a gap in any is a gap in the sums above it. */
export function stack(columns: readonly (readonly (number | null)[])[]): (number | null)[][] {
  let below: readonly (number | null)[] | undefined;
  return columns.map((column) => {
    const prev = below;
    const sum = column.map((v, i) => {
      const b = prev === undefined ? 0 : prev[i];
      return v === null || b === null || b === undefined ? null : v + b;
    });
    below = sum;
    return sum;
  });
}

/** The smallest and largest value above zero; undefined without any. */
export function extent(columns: readonly (readonly (number | null)[])[]): { min: number; max: number } | undefined {
  let min = Infinity;
  let max = -Infinity;
  for (const column of columns) {
    for (const v of column) {
      if (v === null || v <= 0) continue;
      if (v < min) min = v;
      if (v > max) max = v;
    }
  }
  return max === -Infinity ? undefined : { min, max };
}

/** Whether latency needs a log axis: its span is over a decade. */
export function needsLog(e: { min: number; max: number } | undefined): boolean {
  return e !== undefined && e.max / e.min > 10;
}

/** Ticks of a log axis: 1, 2 and 5 of each decade, or the decades alone when there would be more than max of them. */
export function logTicks(min: number, max: number, most = 6): number[] {
  const pick = (steps: readonly number[]): number[] => {
    const ticks: number[] = [];
    for (let e = Math.floor(Math.log10(min)); e <= Math.ceil(Math.log10(max)); e++) {
      for (const s of steps) {
        const v = Number(`${s}e${e}`);
        if (v >= min * 0.999 && v <= max * 1.001) ticks.push(v);
      }
    }
    return ticks;
  };
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = pick(steps);
    if (ticks.length <= most) return ticks;
  }
  return pick([1]);
}
