// The addresses of the page's views, and what stands in their query: the
// window of time, filters and sorting. Every view can be shared by its URL.

export type Page = "overview" | "nodes" | "node" | "backends" | "backend" | "events";

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

/** Reads the window: ?w=1h, or ?from=&to= in Unix seconds; anything else is the last five minutes. */
export function parseWindow(query: URLSearchParams): Window {
  const from = Number(query.get("from"));
  const to = Number(query.get("to"));
  if (from > 0 && to - from >= MIN_ZOOM && Number.isFinite(to)) return { kind: "fixed", from, to };
  const named = WINDOWS.find((w) => w.key === query.get("w"));
  return named ? { kind: "live", seconds: named.seconds } : DEFAULT_WINDOW;
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
    const named = WINDOWS.find((n) => n.seconds === w.seconds);
    if (named && w.seconds !== 300) q.set("w", named.key);
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
  const q = new URLSearchParams(query);
  if (value === "") q.delete(key);
  else q.set(key, value);
  const s = q.toString();
  return s === "" ? "" : `?${s}`;
}

/** Compares two windows by value. */
export function sameWindow(a: Window, b: Window): boolean {
  if (a.kind === "live") return b.kind === "live" && a.seconds === b.seconds;
  return b.kind === "fixed" && a.from === b.from && a.to === b.to;
}
