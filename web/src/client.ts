// Speaks the operator API and PromQL. Errors carry one sentence for the reader.

import type { Event, Fault, List, Me, Problem } from "./api";
import type { ExemplarSeries } from "./exemplars";
import { parseTime } from "./format";
import type { Matrix, Range } from "./series";

/** An answer other than 2xx, or none. */
export class CallError extends Error {
  /** 0 when no answer came. */
  readonly status: number;
  /** Every reason why a configuration was refused. */
  readonly faults: readonly Fault[];
  constructor(status: number, message: string, faults: readonly Fault[] = []) {
    super(message);
    this.name = "CallError";
    this.status = status;
    this.faults = faults;
  }
}

/** Bounds the wait for any answer but a stream's. */
const TIMEOUT_MS = 15_000;
/** What changes something may take longer: a configuration is built before it is taken. */
const CHANGE_TIMEOUT_MS = 90_000;

/** One call. A body that is a string is sent as it is, anything else as JSON. */
export interface Call {
  method: "GET" | "POST" | "PUT" | "DELETE";
  path: string;
  body?: unknown;
  /** The answer is text and not JSON. */
  text?: boolean;
}

async function call<T>(c: Call, signal: AbortSignal): Promise<{ body: T; date: string | null }> {
  const bound = c.method === "GET" ? TIMEOUT_MS : CHANGE_TIMEOUT_MS;
  const headers: Record<string, string> = { accept: "application/json" };
  const init: RequestInit = { method: c.method, headers, signal: AbortSignal.any([signal, AbortSignal.timeout(bound)]) };
  if (c.body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = typeof c.body === "string" ? c.body : JSON.stringify(c.body);
  }
  let answer: Response;
  try {
    answer = await fetch(c.path, init);
  } catch (err) {
    if (signal.aborted) throw err;
    const late = err instanceof DOMException && err.name === "TimeoutError";
    throw new CallError(0, late ? `the manager did not answer within ${bound / 1000} s` : "the manager cannot be reached");
  }
  const text = await answer.text();
  if (answer.ok && c.text) return { body: text as T, date: null };
  let body: unknown;
  try {
    body = text === "" ? undefined : JSON.parse(text);
  } catch {
    if (answer.ok) throw new CallError(answer.status, "the manager answered with something that is not JSON");
  }
  if (!answer.ok) throw new CallError(answer.status, problemText(answer.status, body), faultsOf(body));
  return { body: body as T, date: answer.headers.get("date") };
}

/** The sentence of a problem document, of a Prometheus or Jaeger error, or of the status alone. */
export function problemText(status: number, body: unknown): string {
  const p = (typeof body === "object" && body !== null ? body : {}) as Partial<Problem> & { error?: unknown; errors?: unknown };
  if (typeof p.detail === "string" && p.detail !== "") return p.detail;
  if (typeof p.error === "string" && p.error !== "") return p.error;
  const first: unknown = Array.isArray(p.errors) ? (p.errors[0] as { msg?: unknown } | undefined)?.msg : undefined;
  if (typeof first === "string" && first !== "") return first;
  if (typeof p.title === "string" && p.title !== "") return p.title;
  return status === 403 ? "this needs another role" : `the manager answered ${status}`;
}

function faultsOf(body: unknown): readonly Fault[] {
  const faults = (body as Partial<Problem> | undefined)?.faults;
  return Array.isArray(faults) ? faults : [];
}

/** Makes a call and returns its answer. */
export async function send<T>(c: Call, signal: AbortSignal): Promise<T> {
  return (await call<T>(c, signal)).body;
}

/** Runs one range query. */
export async function queryRange(query: string, r: Range, signal: AbortSignal): Promise<Matrix[]> {
  const params = new URLSearchParams({ query, start: String(r.start), end: String(r.end), step: String(r.step) });
  const body = await send<{ data?: { result?: Matrix[] } }>({ method: "GET", path: `/prometheus/api/v1/query_range?${params}` }, signal);
  return body.data?.result ?? [];
}

/** Reads the exemplars of the series that a selector names; start and end in Unix seconds. */
export async function queryExemplars(query: string, start: number, end: number, signal: AbortSignal): Promise<ExemplarSeries[]> {
  const params = new URLSearchParams({ query, start: String(start), end: String(end) });
  const body = await send<{ data?: ExemplarSeries[] }>({ method: "GET", path: `/prometheus/api/v1/query_exemplars?${params}` }, signal);
  return body.data ?? [];
}

/** Events after the one with id after, at most limit. */
export async function listEvents(after: number, limit: number, signal: AbortSignal): Promise<Event[]> {
  const params = new URLSearchParams({ after: String(after), limit: String(limit) });
  const body = await send<List<Event>>({ method: "GET", path: `/v1/events?${params}` }, signal);
  return body.items ?? [];
}

/** Who the manager takes this browser for, and its clock (Unix milliseconds, to the second) where it tells it. */
export async function whoAmI(signal: AbortSignal): Promise<{ me: Me; clock: number | undefined }> {
  const { body, date } = await call<Me>({ method: "GET", path: "/v1/me" }, signal);
  return { me: body, clock: parseTime(date) };
}
