import { describe, expect, test } from "vitest";
import type { Event } from "./api";
import { iso } from "./fixtures";
import { aliveShare, LOOK_MS, stretches } from "./membership";

const NOW = Date.UTC(2026, 10, 28, 12);
const M = 60_000;
let id = 0;
const event = (kind: string, minutesAgo: number): Event => ({ id: ++id, time: iso(NOW - minutesAgo * M), kind, actor: "manager", message: kind });
const said = (events: Event[], state: Parameters<typeof stretches>[1]) => stretches(events, state, NOW).map((s) => [s.state, (NOW - s.from) / M, (NOW - s.to) / M]);

describe("a node's states over time", () => {
  test("nothing is known of a node without events", () => expect(said([], "alive")).toEqual([]));
  test("from its first event on, in any order", () => {
    const events = [event("node.joined", 60), event("node.unreachable", 30), event("node.down", 25), event("node.alive", 20)];
    const want = [["alive", 60, 30], ["unreachable", 30, 25], ["down", 25, 20], ["alive", 20, 0]];
    expect(said(events, "alive")).toEqual(want);
    expect(said(events.reverse(), "alive")).toEqual(want);
  });
  test("what is no state changes nothing, and equal states are one stretch", () => {
    expect(said([event("node.enrolled", 61), event("node.joined", 60), event("node.drained", 50), event("node.alive", 40)], "alive")).toEqual([["alive", 60, 0]]);
  });
  test("at most a day, and the state before it goes on into it", () => {
    expect(said([event("node.joined", 3000), event("node.left", 60)], "left")).toEqual([["alive", LOOK_MS / M, 60], ["left", 60, 0]]);
  });
  test("the manager's word ends the last stretch, whatever the log has lost", () => {
    expect(said([event("node.joined", 60)], "down").at(-1)).toEqual(["down", 0, 0]);
  });
});

test("the share of being alive", () => {
  expect(aliveShare(stretches([event("node.joined", 60), event("node.down", 15)], "down", NOW))).toBeCloseTo(0.75);
  expect(aliveShare([])).toBeUndefined();
});
