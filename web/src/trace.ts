// A trace as rows of a waterfall, and traces as points: pure functions over
// Jaeger's JSON. Times and durations are microseconds.

import type { JaegerSpan, JaegerTag, JaegerTrace } from "./api";

export interface SpanRow {
  span: JaegerSpan;
  service: string;
  depth: number;
  /** Its own children are drawn below. */
  children: number;
  failed: boolean;
}

export interface TraceView {
  id: string;
  /** The name of the first root span, with its service. */
  name: string;
  service: string;
  start: number;
  duration: number;
  rows: SpanRow[];
  services: string[];
  errors: number;
  /** HTTP status of the root, empty without. */
  status: string;
  /** Spans whose parent is not in the trace. */
  orphans: number;
}

export const tagOf = (tags: readonly JaegerTag[] | null | undefined, ...keys: string[]): string => {
  for (const key of keys) {
    const t = tags?.find((x) => x.key === key);
    if (t) return String(t.value);
  }
  return "";
};

/** Whether a span says that it failed. */
export function failed(s: JaegerSpan): boolean {
  return tagOf(s.tags, "error") === "true" || tagOf(s.tags, "otel.status_code") === "ERROR" || Number(tagOf(s.tags, "http.response.status_code", "http.status_code")) >= 500;
}

/** Puts the spans in the order of a waterfall: each below its parent, by their start. */
export function viewTrace(t: JaegerTrace): TraceView {
  const byID = new Map(t.spans.map((s) => [s.spanID, s]));
  const children = new Map<string, JaegerSpan[]>();
  const roots: JaegerSpan[] = [];
  let orphans = 0;
  for (const s of t.spans) {
    const parent = (s.references ?? []).find((r) => r.refType === "CHILD_OF" && r.traceID === t.traceID)?.spanID;
    if (parent !== undefined && byID.has(parent) && parent !== s.spanID) children.set(parent, [...(children.get(parent) ?? []), s]);
    else {
      if (parent !== undefined) orphans++;
      roots.push(s);
    }
  }
  const byStart = (a: JaegerSpan, b: JaegerSpan): number => a.startTime - b.startTime || b.duration - a.duration;
  const rows: SpanRow[] = [];
  const seen = new Set<string>();
  // A stack and not recursion: a trace may be deeper than a call stack.
  const stack = roots.sort(byStart).reverse().map((span) => ({ span, depth: 0 }));
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { span, depth } = top;
    if (seen.has(span.spanID)) continue; // two spans with one id
    seen.add(span.spanID);
    const own = (children.get(span.spanID) ?? []).sort(byStart);
    rows.push({ span, depth, children: own.length, service: t.processes[span.processID]?.serviceName ?? "", failed: failed(span) });
    stack.push(...own.reverse().map((s) => ({ span: s, depth: depth + 1 })));
  }
  const start = Math.min(...t.spans.map((s) => s.startTime));
  const end = Math.max(...t.spans.map((s) => s.startTime + s.duration));
  const first = rows[0];
  return {
    id: t.traceID, name: first?.span.operationName ?? "", service: first?.service ?? "", start: Number.isFinite(start) ? start : 0, duration: Number.isFinite(end) ? end - start : 0, rows, orphans,
    services: [...new Set(rows.map((r) => r.service))].sort(), errors: rows.filter((r) => r.failed).length, status: tagOf(first?.span.tags, "http.response.status_code", "http.status_code"),
  };
}
