import { describe, expect, test } from "vitest";
import type { Overview } from "./api";
import { activity, backend, iso, node, NOW, overview } from "./fixtures";
import { attention, failsFrom, level, sentence, trackSince, wilsonLower } from "./health";

const say = (o: Overview): string => sentence(o, attention(o, NOW), NOW).map((p) => p.text).join("").replaceAll("\u00a0", " ");
const lines = (o: Overview): string[] => attention(o, NOW).map((i) => `${i.tone} ${i.subject} ${i.text}`.replaceAll("\u00a0", " "));
const failing = activity({ errors: 600, error_ratio: 0.1 * 6000 / 6000 });

describe("what errors prove", () => {
  test("the lower bound is below the ratio and grows with evidence", () => {
    expect(wilsonLower(0, 0)).toBe(0);
    expect(wilsonLower(0, 1000)).toBe(0);
    expect(wilsonLower(1, 20)).toBeLessThan(0.01 + 0.01);
    expect(wilsonLower(100, 2000)).toBeGreaterThan(0.04);
    expect(wilsonLower(100, 2000)).toBeLessThan(0.05);
    expect(wilsonLower(20, 20)).toBeGreaterThan(0.8);
  });
  test.each([
    ["no data", null, undefined],
    ["thin traffic proves nothing", activity({ requests: 19, errors: 19 }), undefined],
    ["limited answers are no evidence", activity({ requests: 100, limited: 90, errors: 10 }), undefined],
    ["fine", activity(), undefined],
    ["3 % of much", activity({ requests: 2000, errors: 60 }), "warn"],
    ["1 of 50", activity({ requests: 50, errors: 1 }), undefined],
    ["all of 20", activity({ requests: 20, errors: 20 }), "bad"],
    ["16 %", activity({ requests: 2000, errors: 320 }), "bad"],
  ])("%s", (_name, a, want) => expect(level(a)).toBe(want));
});

describe("from where a backend fails", () => {
  const row = (id: string, errors: number, requests = 100) => ({ node: id, activity: activity({ requests, errors }) });
  const name = (id: string): string => id;
  test.each([
    ["nowhere", [row("a", 0)], ""],
    ["everywhere", [row("a", 3), row("b", 1), row("c", 9)], " from all 3 nodes"],
    ["one of three", [row("a", 3), row("b", 0), row("c", 0)], " from a"],
    ["two of three, idle ones left out", [row("b", 3), row("a", 1), row("c", 0), row("d", 0, 0)], " from a and b"],
    ["many of more", ["a", "b", "c", "d", "e"].map((id) => row(id, id === "e" ? 0 : 1)), " from 4 of 5 nodes"],
  ])("%s", (_name, rows, want) => expect(failsFrom(backend("b:1", { nodes: rows }), name)).toBe(want));
});

describe("the sentence", () => {
  test("a calm fleet", () => {
    expect(say(overview([node("a"), node("b")]))).toBe("All 2 nodes serve. Nothing needs attention.");
    expect(say(overview([node("a")]))).toBe("The one node serves. Nothing needs attention.");
  });
  test("a node that left is not missed, a dead one is", () => {
    const since = iso(NOW - 10 * 60_000);
    const o = overview([node("a"), node("b", { state: "left" }), node("gw-3", { state: "down", state_cause: "no poll for 5 min", state_since: since })]);
    expect(say(o)).toContain("1 of 2 nodes serve. Node gw-3 is down: no poll for 5 min since ");
  });
  test("a node without a lease serves, as long as it is heard of", () => {
    const ended = { state: "left", conditions: [{ kind: "lease_ended", cause: "", since: iso(NOW) }] } as const;
    const o = overview([node("a", { ...ended, conditions: [...ended.conditions], last_poll: iso(NOW - 20_000) }), node("b")]);
    expect(say(o)).toMatch(/^All 2 nodes serve. Node a has no valid lease and runs at the fallback rate/);
    expect(say(overview([node("a", { ...ended, conditions: [...ended.conditions], last_poll: iso(NOW - 90_000) }), node("b")]))).toMatch(/^1 of 2 nodes serve./);
  });
  test("many dead nodes are one piece of news", () => {
    const o = overview(Array.from({ length: 12 }, (_, i) => node(`n${i}`, i < 5 ? { state: "unreachable" } : {})));
    expect(say(o)).toMatch(/^7 of 12 nodes serve. 5 do not answer, the first since \d\d:\d\d\.$/);
  });
  test("a failing backend", () => {
    const b = backend("billing:8080", { activity: failing, nodes: ["a", "b"].map((n) => ({ node: n, activity: activity({ errors: 300 }) })) });
    expect(say(overview([node("a"), node("b")], [b]))).toBe("All 2 nodes serve. Backend billing:8080 fails 10 % of calls from all 2 nodes.");
  });
  test("only the worst are named", () => {
    const o = overview([node("a")], ["x", "y", "z"].map((id) => backend(id, { activity: failing })));
    expect(say(o)).toMatch(/1 more thing needs attention\.$/);
  });
  test("unmanaged only, and nothing", () => {
    expect(say(overview([node("a", { managed: false })]))).toContain("1 unmanaged gateway reports; no node is managed.");
    expect(say(overview([node("a", { state: "left" })]))).toContain("No node serves.");
  });
});

describe("what needs attention", () => {
  test.each<[string, Overview, string[]]>([
    ["nothing", overview([node("a")], [backend("b")]), []],
    ["a refused revision", overview([node("a", { ledger: { desired: { number: 8, sha256: "bb", time: iso(NOW) }, attempted: { number: 8, sha256: "bb", time: iso(NOW), error: "port in use" }, applied: { number: 7, sha256: "aa", time: iso(NOW) }, last_good: null } })]), ["bad a refused revision 8: port in use"]],
    ["a slow one", overview([node("a", { ledger: { desired: { number: 8, sha256: "bb", time: iso(NOW - 60_000) }, attempted: null, applied: null, last_good: null } })]), ["warn a still runs its own file; revision 8 is wanted"]],
    ["one that was just asked", overview([node("a", { ledger: { desired: { number: 8, sha256: "bb", time: iso(NOW - 5000) }, attempted: null, applied: null, last_good: null } })]), []],
    ["a condition", overview([node("a", { conditions: [{ kind: "udp_blocked", cause: "no ack from 3 peers", since: iso(NOW) }] })]), ["warn a gets no UDP gossip: no ack from 3 peers"]],
    ["a condition of a newer manager", overview([node("a", { conditions: [{ kind: "on_fire", cause: "", since: iso(NOW) }] })]), ["warn a on fire"]],
    ["a node that stands out", overview([node("a", { activity: activity({ errors: 1200, error_ratio: 0.2 }) }), node("b")]), ["bad a answers 20 % with errors"]],
    ["errors that all nodes share", overview([node("a", { activity: failing })], [], { activity: failing }), []],
    ["a running rollout", overview([node("a")], [], { rollouts: [{ id: "1", group: "eu", from: 1, to: 2, strategy: "all", state: "running", started: iso(NOW), confirmed: ["a"], pending: ["b", "c"] }] }), ["info Rollout of revision 2 to eu is running: 1 of 3 nodes confirmed"]],
    ["all seats taken", overview([node("a")], [], { license: { plan: "pro", state: "valid", seats: 3, seats_used: 3 } }), ["warn License has all 3 seats taken: another node would be refused"]],
    ["a missing license", overview([node("a")], [], { license: { plan: "", state: "missing", seats: 0, seats_used: 0 } }), ["bad License is missing"]],
  ])("%s", (_name, o, want) => expect(lines(o)).toEqual(want));

  test("worst first, then oldest", () => {
    const at = (min: number): string => iso(NOW - min * 60_000);
    const o = overview([node("a", { state: "suspect", state_since: at(9) }), node("b", { state: "down", state_since: at(1) }), node("c", { state: "down", state_since: at(5) })]);
    expect(attention(o, NOW).map((i) => i.subject)).toEqual(["c", "b", "a"]);
  });

  test("null lists, as Go writes empty ones", () => {
    const o: Overview = { ...overview([]), nodes: null, backends: null };
    o.cluster.rollouts = null;
    expect(attention(o, NOW)).toEqual([]);
    expect(say(o)).toContain("No node serves.");
  });
});

describe("since when", () => {
  const one = [{ key: "backend/x", tone: "bad" as const, subject: "x", text: "fails", href: "/" }];
  test("what was there at first has no known beginning, what comes later has", () => {
    const first = trackSince(new Map(), one, 100, true);
    expect(first.items[0]?.since).toBeUndefined();
    const again = trackSince(first.seen, one, 200, false);
    expect(again.items[0]?.since).toBeUndefined();
    const gone = trackSince(again.seen, [], 300, false);
    const back = trackSince(gone.seen, one, 400, false);
    expect(back.items[0]?.since).toBe(400);
    expect(trackSince(back.seen, one, 500, false).items[0]?.since).toBe(400);
  });
});

test("an unmanaged gateway that falls silent is a warning, in words that end with since when", () => {
  const items = attention(overview([node("a"), node("old", { managed: false, state: "down", state_cause: "no telemetry since then", state_since: iso(NOW - 60_000), ledger: null })]), NOW);
  expect(items.map((x) => [x.tone, `${x.subject} ${x.text}`])).toEqual([["warn", "old is unmanaged and sends nothing"]]);
});
