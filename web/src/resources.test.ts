import { NONE_UNDATED } from "./since";
import { describe, expect, test } from "vitest";
import type { Me } from "./api";
import { backend, iso, node, NOW } from "./fixtures";
import { lacks, may } from "./access";
import { evidencePaths, type Loaded, MOST_CELLS, needs, parseTags, rolloutPath, shownStep, tracesPath } from "./resources";
import { parseRoute } from "./routes";

const me = (role: Me["role"], rights: string[] = []): Me => ({ name: "x", role, rights });
const ready = (body: unknown): Loaded<unknown> => ({ state: "ready", body, problem: "", status: 200 });
const of = (path: string, who: Me | undefined = me("admin"), data = new Map<string, Loaded<unknown>>()): string[] =>
  needs({ route: parseRoute(path), me: who, data, nodes: [node("a")], backends: [backend("b:1", { callers: 3 })], undated: NONE_UNDATED, opened: 1000 }).map((n) => n.path);

describe("roles", () => {
  test("include each other; a single right opens one thing", () => {
    expect([may(me("viewer"), "operator"), may(me("admin"), "operator"), may(undefined, "viewer")]).toEqual([false, true, false]);
    expect(may(me("viewer", ["traces:read"]), "operator", "traces:read")).toBe(true);
  });
  test.each([["config", "viewer", "operator"], ["tokens", "operator", "admin"], ["nodes", "viewer", undefined]] as const)("%s for a %s", (page, role, want) => expect(lacks(me(role), page)).toBe(want));
});

describe("what views read", () => {
  test("nothing that the visitor may not", () => {
    expect(of("/config/default", me("viewer"))).toEqual([]);
    expect(of("/traces", me("viewer"))).toEqual([]);
    expect(of("/traces", me("viewer", ["traces:read"]))).toContain("/jaeger/api/services");
    expect(lacks(undefined, "config")).toBe("operator");
  });
  test("a comparison waits for the hashes", () => {
    const path = "/config/eu/diff?from=1&to=2";
    expect(of(path)).toEqual(["/v1/groups/eu/revisions", "/v1/groups/eu/diff?from=1&to=2"]);
    const data = new Map([["/v1/groups/eu/revisions", ready({ items: [{ number: 1, sha256: "aa" }, { number: 2, sha256: "bb" }] })]]);
    expect(of(path, me("operator"), data).slice(2)).toEqual(["/v1/configs/aa", "/v1/configs/bb"]);
  });
  test("names are escaped", () => expect(of("/config/a%2Fb%3F")).toContain("/v1/groups/a%2Fb%3F/revisions"));
  test("the whole matrix only while it is small", () => {
    expect(of("/matrix")).toHaveLength(1);
    expect(needs({ route: parseRoute("/matrix"), me: me("viewer"), data: new Map(), nodes: [], backends: [backend("b:1", { callers: MOST_CELLS + 1 })], undated: NONE_UNDATED, opened: 0 })).toEqual([]);
  });
  test("a rollout's evidence, once there is some", () => {
    const verdict = { result: "pass", reason: "", at: iso(NOW), from: iso(NOW - 60_000), canaries: ["n-1"], controls: ["n-2"], control: "nodes", looks: 3 };
    const r = { id: "r1", group: "eu", steps: [{ bake: 60, state: "passed", verdict }, { bake: 60, state: "waiting" }], step: 1 };
    const paths = of("/rollouts/r1", me("operator"), new Map([[rolloutPath("r1"), ready(r)]]));
    expect(paths.filter((p) => p.startsWith("/prometheus/"))).toHaveLength(4);
    expect(decodeURIComponent(paths.find((p) => p.startsWith("/prometheus/")) ?? "")).toContain('instance=~"n-1"');
  });
});

test("node ids are text in a query, also those of unmanaged senders", () => {
  const p = evidencePaths({ result: "pass", reason: "", at: iso(NOW), from: iso(NOW - 60_000), canaries: ['a.b|"c'], looks: 1 });
  expect(new URL(`http://x${p?.canary.p99}`).searchParams.get("query")).toContain(String.raw`instance=~"a\\.b\\|\"c"`);
});

test("the step whose evidence is shown", () => {
  const verdict = { result: "pass" as const, reason: "", at: "", looks: 1 };
  const r = { id: "", group: "", from: 1, to: 2, strategy: "steps", state: "running" as const, started: "", confirmed: [], pending: [], step: 2, steps: [{ bake: 1, state: "passed" as const, verdict }, { bake: 1, state: "passed" as const, verdict }, { bake: 1, state: "rolling" as const }] };
  expect([shownStep(r, new URLSearchParams()), shownStep(r, new URLSearchParams("step=0")), shownStep(r, new URLSearchParams("step=9"))]).toEqual([1, 0, 1]);
});

test("searches for traces", () => {
  expect(parseTags('http.route=/a error=true note="two words" loose')).toEqual({ "http.route": "/a", error: "true", note: "two words" });
  const q = new URL(`http://x${tracesPath(new URLSearchParams("service=gw&min=100ms&tags=a=b&limit=9999&w=1h"))}`).searchParams;
  expect(Object.fromEntries(q)).toEqual({ service: "gw", minDuration: "100ms", tags: '{"a":"b"}', limit: "50", lookback: "3600s" });
  expect(tracesPath(new URLSearchParams("from=100&to=200"))).toContain("start=100000000&end=200000000");
});
