import { describe, expect, test } from "vitest";
import { activity } from "./fixtures";
import { chartData, chartFromRecent, extent, logTicks, needsLog, onGrid, queries, rangeOf, stack, stepFor } from "./series";

const FLEET = { rollup: "group:http_server_request_duration_seconds", matchers: "" };

describe("steps and ranges", () => {
  test.each([[300, 2], [3600, 30], [86400, 600], [10, 1], [7 * 86400, 7200]])("stepFor(%d) = %d", (span, step) => expect(stepFor(span)).toBe(step));
  test("ends are multiples of the step", () => {
    expect(rangeOf({ kind: "live", seconds: 300 }, 1001)).toEqual({ start: 702, end: 1000, step: 2 });
    expect(rangeOf({ kind: "fixed", from: 101, to: 401 }, 5000)).toEqual({ start: 102, end: 400, step: 2 });
  });
  test("a rate looks at two samples at least", () => {
    expect(queries(2, FLEET).rates).toBe("histogram_count(sum by (outcome) (rate(group:http_server_request_duration_seconds[30s])))");
    expect(queries(600, FLEET).rates).toContain("[1200s]");
    expect(queries(2, FLEET).quantiles.match(/histogram_quantile/g)).toHaveLength(3);
  });
});

describe("the grid", () => {
  const r = { start: 100, end: 108, step: 2 };
  test("missing points and NaN are gaps; points outside are left out", () => {
    const g = onGrid([{ metric: { outcome: "ok" }, values: [[98, "9"], [100, "1"], [104, "NaN"], [108, "5"], [110, "9"]] }], "outcome", r);
    expect(g.get("ok")).toEqual([1, null, null, null, 5]);
  });
  test("outcomes that never happened are zero where others are known", () => {
    const d = chartData([{ metric: { outcome: "ok" }, values: [[100, "8"], [104, "0"]] }, { metric: { outcome: "error" }, values: [[100, "2"]] }], [{ metric: { quantile: "p99" }, values: [[100, "0.5"]] }], r, { kind: "live", seconds: 10 }, 109);
    expect(d.time).toEqual([100, 102, 104, 106, 108]);
    expect(d.ok).toEqual([8, null, 0, null, null]);
    expect(d.clientError).toEqual([0, null, 0, null, null]);
    expect(d.error).toEqual([2, null, 0, null, null]);
    expect(d.errorRatio).toEqual([0.2, null, null, null, null]);
    expect(d.p99).toEqual([0.5, null, null, null, null]);
    expect(d.p50).toEqual([null, null, null, null, null]);
    expect([d.from, d.to]).toEqual([98, 109]);
  });
  test("limited requests are not counted in the error ratio", () => {
    const at = (outcome: string, v: string) => ({ metric: { outcome }, values: [[100, v] as [number, string]] });
    const d = chartData([at("ok", "9"), at("error", "1"), at("limited", "90")], [], r, { kind: "live", seconds: 10 }, 109);
    expect(d.errorRatio[0]).toBeCloseTo(0.1);
  });
  test("an empty answer is all gaps", () => {
    const d = chartData([], [], r, { kind: "fixed", from: 100, to: 108 }, 5000);
    expect(d.ok).toEqual([null, null, null, null, null]);
    expect([d.from, d.to]).toEqual([100, 108]);
  });
});

describe("drawing", () => {
  test("stack", () => {
    expect(stack([[1, 2, null], [10, null, 30], [100, 200, 300]])).toEqual([[1, 2, null], [11, null, null], [111, null, null]]);
    expect(stack([])).toEqual([]);
  });
  test("extent and log", () => {
    expect(extent([[null, 0, -1]])).toBeUndefined();
    expect(extent([[0.2, null], [3, 0]])).toEqual({ min: 0.2, max: 3 });
    expect(needsLog({ min: 0.2, max: 3 })).toBe(true);
    expect(needsLog({ min: 1, max: 9 })).toBe(false);
    expect(needsLog(undefined)).toBe(false);
  });
  test.each([
    [0.008, 0.09, [0.01, 0.02, 0.05]],
    [0.001, 1, [0.001, 0.01, 0.1, 1]],
    [0.004, 0.5, [0.01, 0.03, 0.1, 0.3]],
  ])("logTicks(%d, %d)", (min, max, want) => expect(logTicks(min, max, 4)).toEqual(want));
  test("charts without history are drawn from what was seen", () => {
    const d = chartFromRecent([{ time: 1, activity: activity() }, { time: 50, activity: activity({ window: 2, requests: 20, errors: 2, client_errors: 4, error_ratio: 0.1 }) }], 60, 100);
    expect(d.time).toEqual([50]);
    expect([d.ok[0], d.clientError[0], d.error[0], d.errorRatio[0]]).toEqual([7, 2, 1, 0.1]);
  });
});
