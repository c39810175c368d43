// The addresses of the page's views, and what stands in their query: the
// window of time, filters and sorting. Every view can be shared by its URL.

export type Page =
  | "overview" | "nodes" | "node" | "backends" | "backend" | "matrix"
  | "config" | "group" | "upload" | "diff" | "rollout"
  | "traces" | "trace" | "license" | "tokens" | "events";

/**
 * Patterns as Go's http.ServeMux has them. web.go's Pages lists the same ones,
 * so that a reload of any view is answered; a test there compares the two.
 */
export const PATTERNS: readonly { pattern: string; page: Page }[] = [
  { pattern: "/{$}", page: "overview" },
  { pattern: "/nodes", page: "nodes" },
  { pattern: "/nodes/{id}", page: "node" },
  { pattern: "/backends", page: "backends" },
  { pattern: "/backends/{id}", page: "backend" },
  { pattern: "/matrix", page: "matrix" },
  { pattern: "/config", page: "config" },
  { pattern: "/config/{id}", page: "group" },
  { pattern: "/config/{id}/upload", page: "upload" },
  { pattern: "/config/{id}/diff", page: "diff" },
  { pattern: "/rollouts/{id}", page: "rollout" },
  { pattern: "/traces", page: "traces" },
  { pattern: "/traces/{id}", page: "trace" },
  { pattern: "/license", page: "license" },
  { pattern: "/tokens", page: "tokens" },
  { pattern: "/events", page: "events" },
];

export interface Route {
  /** undefined when no view has this path. */
  page: Page | undefined;
  /** What {id} stands for, decoded; empty for pages without. */
  id: string;
  query: URLSearchParams;
}

/** Finds the view of a path (with query). Never throws: a broken escape is no page. */
export function parseRoute(path: string): Route {
  const [pathname = "/", search = ""] = path.split("?", 2);
  const query = new URLSearchParams(search);
  const have = pathname === "/" ? [] : pathname.slice(1).split("/");
  for (const { pattern, page } of PATTERNS) {
    const want = pattern === "/{$}" ? [] : pattern.slice(1).split("/");
    if (want.length !== have.length) continue;
    let id = "";
    const matches = want.every((w, i) => {
      const h = have[i] ?? "";
      if (w !== "{id}") return w === h;
      try {
        id = decodeURIComponent(h);
      } catch {
        return false;
      }
      return id !== "";
    });
    if (matches) return { page, id, query };
  }
  return { page: undefined, id: "", query };
}

export const nodeHref = (id: string): string => `/nodes/${encodeURIComponent(id)}`;
export const backendHref = (id: string): string => `/backends/${encodeURIComponent(id)}`;
export const groupHref = (name: string): string => `/config/${encodeURIComponent(name)}`;
export const uploadHref = (name: string): string => `${groupHref(name)}/upload`;
export const diffHref = (name: string, from: number, to: number): string => `${groupHref(name)}/diff?from=${from}&to=${to}`;
export const rolloutHref = (id: string): string => `/rollouts/${encodeURIComponent(id)}`;
export const traceHref = (id: string): string => `/traces/${encodeURIComponent(id)}`;

/** The time that charts show: live, its length in seconds ending now, or fixed, in Unix seconds. */
export type Window = { kind: "live"; seconds: number } | { kind: "fixed"; from: number; to: number };

export const WINDOWS: readonly { seconds: number; key: string; label: string }[] = [
  { seconds: 300, key: "5m", label: "5 min" },
  { seconds: 3600, key: "1h", label: "1 h" },
  { seconds: 86400, key: "24h", label: "24 h" },
];

const DEFAULT_WINDOW: Window = { kind: "live", seconds: 300 };

/** A zoom is at least this long, in seconds: below it there is less than one sample. */
export const MIN_ZOOM = 10;

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400 };
/** Live windows are between a minute and this long, in seconds. */
const LONGEST = 30 * 86400;

/** Reads a length of time such as 15m, 6h or 7d, in seconds; undefined for anything else. */
export function parseLength(text: string): number | undefined {
  const m = /^(\d{1,5})([smhd])$/.exec(text.trim());
  const seconds = m ? Number(m[1]) * (UNITS[m[2] ?? ""] ?? 0) : 0;
  return seconds >= 60 && seconds <= LONGEST ? seconds : undefined;
}

/** The shortest form that parseLength reads back. */
export function formatLength(seconds: number): string {
  for (const unit of ["d", "h", "m"]) {
    const u = UNITS[unit] ?? 1;
    // 24h and not 1d: that is the name of the window.
    if (seconds % u === 0 && seconds / u >= (unit === "d" ? 2 : 1)) return `${seconds / u}${unit}`;
  }
  return `${seconds}s`;
}

/** Reads the window: ?w=1h, or ?from=&to= in Unix seconds; anything else is the last five minutes. */
export function parseWindow(query: URLSearchParams): Window {
  const from = Number(query.get("from"));
  const to = Number(query.get("to"));
  if (from > 0 && to - from >= MIN_ZOOM && Number.isFinite(to)) return { kind: "fixed", from, to };
  const seconds = parseLength(query.get("w") ?? "");
  return seconds === undefined ? DEFAULT_WINDOW : { kind: "live", seconds };
}

/** The query with another window; what else it says is kept. w stays beside from and to, as where a zoom returns to. */
export function withWindow(query: URLSearchParams, w: Window): string {
  const q = new URLSearchParams(query);
  q.delete("from");
  q.delete("to");
  if (w.kind === "fixed") {
    q.set("from", String(Math.round(w.from)));
    q.set("to", String(Math.round(w.to)));
  } else {
    q.delete("w");
    if (w.seconds !== 300) q.set("w", formatLength(w.seconds));
  }
  const s = q.toString();
  return s === "" ? "" : `?${s}`;
}

/** The query that a double click on a zoomed chart returns to. */
export function withoutZoom(query: URLSearchParams): string {
  const q = new URLSearchParams(query);
  q.delete("from");
  q.delete("to");
  return withWindow(q, parseWindow(q));
}

/** The query with one key set, or removed by the empty value. */
export function withKey(query: URLSearchParams, key: string, value: string): string {
  return withKeys(query, { [key]: value });
}

/** The query with several keys set, or removed by the empty value. */
export function withKeys(query: URLSearchParams, values: Record<string, string>): string {
  const q = new URLSearchParams(query);
  for (const [key, value] of Object.entries(values)) {
    if (value === "") q.delete(key);
    else q.set(key, value);
  }
  const s = q.toString();
  return s === "" ? "" : `?${s}`;
}

/** Compares two windows by value. */
export function sameWindow(a: Window, b: Window): boolean {
  if (a.kind === "live") return b.kind === "live" && a.seconds === b.seconds;
  return b.kind === "fixed" && a.from === b.from && a.to === b.to;
}
