// Speaks the operator API and PromQL. Errors carry one sentence for the reader.

import type { Event, List, Me, Problem } from "./api";
import { parseTime } from "./format";
import type { Matrix, Range } from "./series";

/** An answer other than 2xx, or none. */
export class CallError extends Error {
  /** 0 when no answer came. */
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.name = "CallError";
    this.status = status;
  }
}

/** Bounds the wait for any answer but a stream's. */
const TIMEOUT_MS = 15_000;

async function get<T>(path: string, signal: AbortSignal): Promise<T> {
  return (await call<T>(path, signal)).body;
}

async function call<T>(path: string, signal: AbortSignal): Promise<{ body: T; date: string | null }> {
  let answer: Response;
  try {
    answer = await fetch(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]), headers: { accept: "application/json" } });
  } catch (err) {
    if (signal.aborted) throw err;
    const late = err instanceof DOMException && err.name === "TimeoutError";
    throw new CallError(0, late ? "the manager did not answer within 15 s" : "the manager cannot be reached");
  }
  const body: unknown = await answer.json().catch(() => undefined);
  if (!answer.ok) throw new CallError(answer.status, problemText(answer.status, body));
  return { body: body as T, date: answer.headers.get("date") };
}

/** The sentence of a problem document, of a Prometheus error, or of the status alone. */
export function problemText(status: number, body: unknown): string {
  const p = (typeof body === "object" && body !== null ? body : {}) as Partial<Problem> & { error?: unknown };
  if (typeof p.detail === "string" && p.detail !== "") return p.detail;
  if (typeof p.error === "string" && p.error !== "") return p.error;
  if (typeof p.title === "string" && p.title !== "") return p.title;
  return status === 403 ? "this needs another role" : `the manager answered ${status}`;
}

/** Runs one range query. */
export async function queryRange(query: string, r: Range, signal: AbortSignal): Promise<Matrix[]> {
  const params = new URLSearchParams({ query, start: String(r.start), end: String(r.end), step: String(r.step) });
  const body = await get<{ data?: { result?: Matrix[] } }>(`/prometheus/api/v1/query_range?${params}`, signal);
  return body.data?.result ?? [];
}

/** Events after the one with id after, at most limit. */
export async function listEvents(after: number, limit: number, signal: AbortSignal): Promise<Event[]> {
  const params = new URLSearchParams({ after: String(after), limit: String(limit) });
  const body = await get<List<Event>>(`/v1/events?${params}`, signal);
  return body.items ?? [];
}

/** Who the manager takes this browser for, and its clock (Unix milliseconds, to the second) where it tells it. */
export async function whoAmI(signal: AbortSignal): Promise<{ me: Me; clock: number | undefined }> {
  const { body, date } = await call<Me>("/v1/me", signal);
  return { me: body, clock: parseTime(date) };
}
