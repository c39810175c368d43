import { describe, expect, test } from "vitest";
import { exemplarQuery, type ExemplarSeries, pickExemplars, spansToRead } from "./exemplars";
import { activity, node } from "./fixtures";
import { parseRoute } from "./routes";

const series = (labels: Record<string, string>, ...points: [number, number, string][]): ExemplarSeries => ({
  seriesLabels: labels, exemplars: points.map(([timestamp, value, trace]) => ({ labels: trace === "" ? {} : { trace_id: trace }, value: String(value), timestamp })),
});

describe("what is drawn", () => {
  test("the slowest of each piece, in order, with its route and whether it failed", () => {
    const got = pickExemplars([series({ http_request_method: "GET", http_route: "/a" }, [10, 0.1, "t1"], [11, 0.9, "t2"], [300, 0.2, "t3"]), series({ http_route: "/b", http_response_status_code: "502" }, [12, 1.5, "t4"])], 0, 360);
    expect(got).toEqual([
      { time: 12, value: 1.5, trace: "t4", name: "/b", failed: true },
      { time: 300, value: 0.2, trace: "t3", name: "GET /a", failed: false },
    ]);
  });
  test("nothing without a trace, outside the window, or not a number", () => {
    expect(pickExemplars([series({}, [10, 1, ""], [-5, 1, "t"], [400, 1, "t"], [20, NaN, "t"]), { seriesLabels: {}, exemplars: null }], 0, 360)).toEqual([]);
  });
});

describe("what is read", () => {
  test("a short window whole, then what is new, with what comes late", () => {
    expect(spansToRead(1000, 1300, 0)).toEqual([[1000, 1300]]);
    expect(spansToRead(1015, 1315, 1300)).toEqual([[1270, 1315]]);
    expect(spansToRead(2000, 2300, 1300)).toEqual([[2000, 2300]]);
  });
  test("pieces of a long one, up to its end", () => {
    const spans = spansToRead(0, 86_400, 0);
    expect(spans.length).toBe(12);
    expect(spans.at(-1)).toEqual([86_380, 86_400]);
  });
  test("what is drawn stays until something slower or the window's end comes", () => {
    const have = pickExemplars([series({}, [100, 0.5, "a"], [200, 0.5, "b"])], 0, 360);
    expect(pickExemplars([series({}, [205, 0.4, "c"], [206, 0.9, "d"])], 150, 510, have).map((e) => e.trace)).toEqual(["d"]);
  });
});

describe("what is asked", () => {
  const few = [node("n-1")];
  test("by view", () => {
    const of = (path: string) => exemplarQuery(parseRoute(path), few);
    expect(of("/")).toBe("http_server_request_duration_seconds{}");
    expect(of("/nodes/n-1")).toBe('http_server_request_duration_seconds{instance="n-1"}');
    expect(of("/config/eu")).toBe('http_server_request_duration_seconds{group="eu",}');
    expect(of("/backends/b%3A1")).toBe('http_client_request_duration_seconds{server_address="b",server_port="1",}');
    expect(of("/events")).toBeUndefined();
  });
  test("of a large fleet only the slowest nodes", () => {
    const many = Array.from({ length: 100 }, (_, i) => node(`n-${i}`, { activity: activity({ latency: { p50: 0, p95: 0, p99: i } }) }));
    const q = exemplarQuery(parseRoute("/"), many) ?? "";
    expect(q).toContain("n-99|n-98");
    expect(q.split("|").length).toBe(20);
  });
});
