import { describe, expect, test } from "vitest";
import { backendHref, parseRoute, parseWindow, sameWindow, withKey, withoutZoom, withWindow } from "./routes";

describe("paths", () => {
  test.each([
    ["/", "overview", ""],
    ["/?w=1h", "overview", ""],
    ["/nodes", "nodes", ""],
    ["/nodes/n-1", "node", "n-1"],
    ["/nodes/", undefined, ""],
    ["/backends/billing%3A8080", "backend", "billing:8080"],
    ["/backends/%5B%3A%3A1%5D%3A80", "backend", "[::1]:80"],
    ["/backends/%zz", undefined, ""],
    ["/events", "events", ""],
    ["/matrix", "matrix", ""],
    ["/config/eu", "group", "eu"],
    ["/config/eu/diff?from=1&to=2", "diff", "eu"],
    ["/config/eu/nope", undefined, ""],
    ["/rollouts/r1", "rollout", "r1"],
    ["/traces/0af7", "trace", "0af7"],
    ["/nope", undefined, ""],
    ["/nodes/a/b", undefined, ""],
  ])("%s", (path, page, id) => expect(parseRoute(path)).toMatchObject({ page, id }));

  test("a backend's link leads to it, whatever its name", () => {
    for (const id of ["a:1", "[::1]:80", "x/y?z#%", "<b>"]) expect(parseRoute(backendHref(id))).toMatchObject({ page: "backend", id });
  });
});

describe("the window", () => {
  const q = (s: string): URLSearchParams => new URLSearchParams(s);
  test.each([
    ["", { kind: "live", seconds: 300 }],
    ["w=24h", { kind: "live", seconds: 86400 }],
    ["w=7y", { kind: "live", seconds: 300 }],
    ["w=90m", { kind: "live", seconds: 5400 }],
    ["w=7d", { kind: "live", seconds: 604800 }],
    ["w=5s", { kind: "live", seconds: 300 }],
    ["w=99999d", { kind: "live", seconds: 300 }],
    ["from=100&to=200", { kind: "fixed", from: 100, to: 200 }],
    ["from=200&to=100", { kind: "live", seconds: 300 }],
    ["from=100&to=105", { kind: "live", seconds: 300 }],
    ["from=x&to=y&w=1h", { kind: "live", seconds: 3600 }],
  ])("%s", (s, want) => expect(parseWindow(q(s))).toEqual(want));

  test("zoom and back keep the rest of the query", () => {
    const zoomed = withWindow(q("w=1h&q=state%3Adown"), { kind: "fixed", from: 99.6, to: 200 });
    expect(zoomed).toBe("?w=1h&q=state%3Adown&from=100&to=200");
    expect(withoutZoom(q(zoomed))).toBe("?q=state%3Adown&w=1h");
    expect(withWindow(q("w=1h"), { kind: "live", seconds: 300 })).toBe("");
  });
  test("a length of one's own comes back as it was", () => {
    for (const w of ["15m", "90m", "6h", "24h", "2d", "30d", "61s"]) expect(withWindow(q(""), parseWindow(q(`w=${w}`)))).toBe(`?w=${w}`);
  });
  test("withKey", () => {
    expect(withKey(q("a=1"), "q", "x y")).toBe("?a=1&q=x+y");
    expect(withKey(q("q=1"), "q", "")).toBe("");
  });
  test("sameWindow", () => {
    expect(sameWindow({ kind: "live", seconds: 1 }, { kind: "live", seconds: 1 })).toBe(true);
    expect(sameWindow({ kind: "live", seconds: 1 }, { kind: "fixed", from: 1, to: 2 })).toBe(false);
    expect(sameWindow({ kind: "fixed", from: 1, to: 2 }, { kind: "fixed", from: 1, to: 3 })).toBe(false);
  });
});
