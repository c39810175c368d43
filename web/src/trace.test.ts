import { describe, expect, test } from "vitest";
import type { JaegerSpan, JaegerTrace } from "./api";
import { viewTrace } from "./trace";

const span = (spanID: string, parent: string, startTime: number, duration: number, tags: JaegerSpan["tags"] = []): JaegerSpan => ({
  spanID, operationName: spanID, startTime, duration, tags, processID: "p1", references: parent === "" ? [] : [{ refType: "CHILD_OF", traceID: "t", spanID: parent }],
});
const trace = (...spans: JaegerSpan[]): JaegerTrace => ({ traceID: "t", spans, processes: { p1: { serviceName: "gw", tags: [] } } });

describe("the waterfall", () => {
  test("each span below its parent, by start", () => {
    const v = viewTrace(trace(span("c2", "root", 30, 5), span("root", "", 10, 100), span("c1", "root", 20, 5), span("g", "c1", 21, 2)));
    expect(v.rows.map((r) => `${"-".repeat(r.depth)}${r.span.spanID}`)).toEqual(["root", "-c1", "--g", "-c2"]);
    expect([v.start, v.duration, v.name, v.service, v.orphans]).toEqual([10, 100, "root", "gw", 0]);
  });
  test("a parent that is not there makes a root, and is said", () => {
    const v = viewTrace(trace(span("a", "elsewhere", 10, 5)));
    expect([v.rows.length, v.rows[0]?.depth, v.orphans]).toEqual([1, 0, 1]);
  });
  test("failures, by tag, status code or HTTP status", () => {
    const v = viewTrace(trace(
      span("a", "", 0, 1, [{ key: "error", type: "bool", value: true }]), span("b", "", 1, 1, [{ key: "http.response.status_code", type: "int64", value: 503 }]),
      span("c", "", 2, 1, [{ key: "otel.status_code", type: "string", value: "ERROR" }]), span("d", "", 3, 1, [{ key: "http.response.status_code", type: "int64", value: 404 }]),
    ));
    expect(v.rows.filter((r) => r.failed).map((r) => r.span.spanID)).toEqual(["a", "b", "c"]);
  });
  test("circles, doubles and depth do no harm", () => {
    expect(viewTrace(trace(span("a", "b", 0, 1), span("b", "a", 0, 1))).rows).toEqual([]);
    expect(viewTrace(trace(span("a", "a", 0, 1), span("a", "", 0, 1))).rows).toHaveLength(1);
    const deep = Array.from({ length: 20_000 }, (_, i) => span(`s${i}`, i === 0 ? "" : `s${i - 1}`, i, 1));
    expect(viewTrace(trace(...deep)).rows.at(-1)?.depth).toBe(19_999);
    expect(viewTrace(trace()).duration).toBe(0);
  });
});
