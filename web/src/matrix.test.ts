import { describe, expect, test } from "vitest";
import type { ActivityRow } from "./api";
import { activity, backend, node } from "./fixtures";
import { matrixView, shade } from "./matrix";

const NODES = ["a", "b", "c", "d"].map((id) => node(id));
const BACKENDS = ["x:1", "y:1", "z:1"].map((id) => backend(id, { callers: 4 }));
/** Every node calls every backend; bad names the cells that fail, with their ratio. */
function cells(bad: Record<string, number>): ActivityRow[] {
  return NODES.flatMap((n) => BACKENDS.map((b): ActivityRow => ({ node: n.id, backend: b.id, activity: activity({ requests: 1000, errors: 1000 * (bad[`${n.id} ${b.id}`] ?? 0) }) })));
}
const said = (bad: Record<string, number>, ratio = 0.2): string[] => matrixView(NODES, BACKENDS.map((b) => ({ ...b, activity: activity({ error_ratio: ratio }) })), cells(bad)).findings.map((f) => `${f.backend ?? f.node} ${f.text}`);

describe("what the matrix says", () => {
  test("nothing, when all is well", () => expect(said({})).toEqual([]));
  test("a full column is a failing backend", () => {
    expect(said({ "a x:1": 0.2, "b x:1": 0.2, "c x:1": 0.3, "d x:1": 0.1 })).toEqual(["x:1 fails 20\u00a0% of calls from all 4 nodes."]);
  });
  test("a full row is a node that is cut off", () => {
    expect(said({ "c x:1": 1, "c y:1": 1, "c z:1": 0.9 })).toEqual(["c is cut off: calls to all 3 backends fail, from other nodes they do not."]);
  });
  test("some nodes cannot reach one backend", () => {
    expect(said({ "a y:1": 1, "b y:1": 1 })).toEqual(["y:1 cannot be reached from a and b; other nodes can reach it."]);
  });
  test("a backend that fails from everywhere cuts nobody off", () => {
    expect(said({ "a x:1": 1, "b x:1": 1, "c x:1": 1, "d x:1": 1 }, 1)).toEqual(["x:1 is failing: all calls, from all 4 nodes."]);
  });
  test("single failures are no finding", () => expect(said({ "a x:1": 0.02 })).toEqual([]));
});

test("worst first, in both directions, whether fine cells are known or not", () => {
  const bad = { "c y:1": 0.5, "b y:1": 0.1, "b z:1": 0.05 };
  for (const known of [cells(bad), cells(bad).filter((r) => (r.activity?.errors ?? 0) > 0)]) {
    const v = matrixView(NODES, BACKENDS, known);
    expect(v.rows.map((r) => r.id)).toEqual(["c", "b", "a", "d"]);
    expect(v.columns.map((c) => [c.id, c.failing, c.callers])).toEqual([["y:1", 2, 4], ["z:1", 1, 4], ["x:1", 0, 4]]);
  }
});

test("rows keep their places while ratios breathe", () => {
  const order = (bad: Record<string, number>): string[] => matrixView(NODES, BACKENDS, cells(bad)).rows.map((r) => r.id);
  expect(order({ "a x:1": 0.15, "b x:1": 0.16, "c x:1": 0.14 })).toEqual(order({ "a x:1": 0.14, "b x:1": 0.12, "c x:1": 0.19 }));
});

test("cells of nodes and backends that are gone are left out", () => {
  const v = matrixView(NODES, BACKENDS, [{ node: "gone", backend: "x:1", activity: activity() }, { node: "a", backend: "gone", activity: activity() }, { activity: null }]);
  expect(v.cells.size).toBe(0);
});

test("shades", () => {
  const of = (errors: number): number => shade(activity({ requests: 1000, errors }));
  expect([shade(undefined), of(0), of(5), of(10), of(100), of(500), of(1000)]).toEqual([0, 0, 1, 2, 3, 4, 4]);
});
