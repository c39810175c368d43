// The tables of nodes and of backends.

import { useMemo, useState } from "preact/hooks";
import type { Activity, Backend, Node, NodeState } from "../api";
import { exact, NONE, parseTime, rate, ratio, seconds, when } from "../format";
import { failingCells, level } from "../health";
import { navigate } from "../navigate";
import { backendHref, nodeHref, withKey } from "../routes";
import { managerNow, type Store, useData, useStore } from "../store";
import { SPARK, sparkSeedPath } from "../resources";
import { StateMark } from "./marks";
import { Sparkline } from "./sparkline";
import { type Column, Table } from "./table";

/** The columns that every thing with an activity has; crowded where they have others beside them. */
export function activityColumns<T>(activity: (row: T) => Activity | null, calls: boolean, crowded = false): Column<T>[] {
  const word = calls ? "calls" : "requests";
  return [
    { key: "requests_per_second", label: calls ? "Calls" : "Requests", title: `${word} per second`, num: true, sort: (r) => activity(r)?.requests_per_second, raw: (r) => activity(r)?.requests_per_second, cell: (r) => rate(activity(r)?.requests_per_second) },
    { key: "error_ratio", label: "Error ratio", title: "5xx, time-outs and transport failures among all", num: true, sort: (r) => activity(r)?.error_ratio, raw: (r) => activity(r)?.error_ratio, cell: (r) => <Ratio activity={activity(r)} /> },
    { key: "errors", label: "Errors", title: "in the window", num: true, sort: (r) => activity(r)?.errors, raw: (r) => activity(r)?.errors, cell: (r) => count(activity(r)?.errors) },
    { key: "client_errors", label: "4xx", title: "client errors in the window", num: true, minor: true, least: crowded, sort: (r) => activity(r)?.client_errors, raw: (r) => activity(r)?.client_errors, cell: (r) => count(activity(r)?.client_errors) },
    ...(["p50", "p95", "p99"] as const).map((q): Column<T> => ({ key: q, label: q, num: true, minor: q === "p50", least: crowded && q === "p50", sort: (r) => activity(r)?.latency?.[q], raw: (r) => activity(r)?.latency?.[q], cell: (r) => seconds(activity(r)?.latency?.[q]) })),
    { key: "requests_total", label: "Total", title: `${word} since enrollment`, num: true, sort: (r) => activity(r)?.requests_total, raw: (r) => activity(r)?.requests_total, cell: (r) => count(activity(r)?.requests_total) },
  ];
}

const count = (n: number | undefined): string => (n === undefined ? NONE : exact(n));

/** An error ratio, colored only when it proves that something is wrong. */
function Ratio({ activity }: { activity: Activity | null }) {
  const l = level(activity);
  return <span class={l ? `tone-${l}` : undefined}>{ratio(activity?.error_ratio)}</span>;
}

/** "no data since 02:41" where there was some once. */
function Silence({ since, now }: { since: number | undefined; now: number }) {
  return <span class="silent">{since === undefined ? "no data yet" : `no data since ${when(since, now)}`}</span>;
}

const BADNESS: Record<NodeState, number> = { down: 0, unreachable: 1, suspect: 2, alive: 3, left: 4 };

/** What a node runs: its confirmed revision, and the one it should run where that differs. */
export function revisionOf(n: Node): { text: string; off: boolean } {
  const { applied, desired } = n.ledger ?? { applied: null, desired: null };
  if (!n.managed) return { text: NONE, off: false };
  const has = applied && applied.number > 0 ? String(applied.number) : "own file";
  return desired && desired.sha256 !== "" && desired.sha256 !== applied?.sha256 ? { text: `${has} → ${desired.number}`, off: true } : { text: has, off: false };
}

/** Telemetry younger than this is live: nodes export every 10 s. */
const LIVE_MS = 30_000;

/** The sparklines of the nodes: what the store knew before the page began to watch, then what it saw. */
function useSparks(store: Store): { values: (id: string) => readonly number[]; top: number } {
  const sparks = useStore(store, (s) => s.sparks);
  const seed = useData(store, sparkSeedPath(store.state.opened)).body;
  return useMemo(() => {
    const before = new Map((seed?.data?.result ?? []).map((m): [string, number[]] => [m.metric.instance ?? "", (m.values ?? []).map(([, v]) => Number(v)).filter(Number.isFinite)]));
    const values = (id: string): readonly number[] => {
      const seen = sparks.get(id) ?? [];
      return seen.length >= SPARK.points ? seen : [...(before.get(id) ?? []).slice(-(SPARK.points - seen.length)), ...seen];
    };
    let top = 0;
    for (const id of sparks.keys()) for (const v of values(id)) if (v > top) top = v;
    return { values, top };
  }, [sparks, seed]);
}

function nodeColumns(now: number, sparks?: { values: (id: string) => readonly number[]; top: number }): Column<Node>[] {
  return [
    { key: "name", label: "Node", sort: (n) => n.name || n.id, cell: (n) => <span title={n.id}>{n.name || n.id}</span> },
    {
      key: "state", label: "State", sort: (n) => BADNESS[n.state],
      cell: (n) => (
        <>
          <StateMark state={n.state} title={[n.state_cause, parseTime(n.state_since) === undefined ? "" : `since ${when(parseTime(n.state_since) ?? 0, now)}`].filter(Boolean).join(", ") || undefined} />
          {!n.managed && <span class="tag" title="sends telemetry but is not enrolled: add the @cluster block to its file to manage it">unmanaged</span>}
          {(n.conditions ?? []).map((c) => <span key={c.kind} class="tag" title={c.cause}>{c.kind.replaceAll("_", " ")}</span>)}
        </>
      ),
    },
    { key: "group", label: "Group", sort: (n) => n.group, cell: (n) => n.group || NONE },
    { key: "revision", label: "Revision", sort: (n) => n.ledger?.applied?.number, raw: (n) => n.ledger?.applied?.number, cell: (n) => <span class={revisionOf(n).off ? "tone-warn" : undefined}>{revisionOf(n).text}</span> },
    { key: "address", label: "Address", minor: true, sort: (n) => n.address, cell: (n) => n.address || NONE },
    ...(sparks
      ? [{ key: "spark", label: "5 min", title: "requests per second; all rows share one scale", minor: true, sort: (n: Node) => n.activity?.requests_per_second, cell: (n: Node) => <Sparkline values={sparks.values(n.id)} top={sparks.top} points={SPARK.points} label={`up to ${rate(Math.max(0, ...sparks.values(n.id)))}`} /> }]
      : []),
    ...activityColumns<Node>((n) => n.activity, false, sparks !== undefined),
    {
      key: "last_seen", label: "Data", title: "newest telemetry", num: true, sort: (n) => parseTime(n.activity?.last_seen), minor: true,
      cell: (n) => {
        const seen = parseTime(n.activity?.last_seen);
        return seen !== undefined && now - seen < LIVE_MS ? <span title={when(seen, now)}>live</span> : <Silence since={seen} now={now} />;
      },
    },
  ];
}

function backendColumns(): Column<Backend>[] {
  return [
    { key: "id", label: "Backend", sort: (b) => b.id, cell: (b) => b.id },
    ...activityColumns<Backend>((b) => b.activity, true),
    {
      key: "nodes", label: "Failing from", title: "nodes that saw errors, of those that call it", num: true, sort: (b) => failingCells(b).length, raw: (b) => failingCells(b).length,
      cell: (b) => (b.callers > 0 ? `${failingCells(b).length} of ${b.callers}` : NONE),
    },
  ];
}

/** Filter and sorting, kept in the URL where the table is the view, else in the component. */
function useChoices(store: Store, inURL: boolean) {
  const query = useStore(store, (s) => s.route.query);
  const [own, setOwn] = useState({ filter: "", sort: "" });
  if (!inURL) {
    return { ...own, onFilter: (filter: string) => setOwn({ ...own, filter }), onSort: (sort: string) => setOwn({ ...own, sort }) };
  }
  return {
    filter: query.get("q") ?? "",
    sort: query.get("sort") ?? "",
    onFilter: (text: string) => navigate(store, withKey(query, "q", text), true),
    onSort: (sort: string) => navigate(store, withKey(query, "sort", sort), true),
  };
}

const NO_NODES: Node[] = [];
const NO_BACKENDS: Backend[] = [];

export function NodesTable({ store, whole }: { store: Store; whole: boolean }) {
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? NO_NODES;
  const choices = useChoices(store, whole);
  const now = managerNow(store.state, Date.now());
  const sparks = useSparks(store);
  const columns = useMemo(() => nodeColumns(now, whole ? sparks : undefined), [nodes, sparks, whole]);
  return (
    <Table
      caption="Nodes" columns={columns} rows={nodes} brief={!whole} {...choices}
      id={(n) => n.id} testid={(n) => `node-row-${n.id}`} href={(n) => nodeHref(n.id)}
      order={(a, b) => BADNESS[a.state] - BADNESS[b.state] || (a.name || a.id).localeCompare(b.name || b.id, "en", { numeric: true })}
      {...(whole || nodes.length > 20 ? { fields: nodeFields, fieldNames: NODE_FIELDS, hint: "state:down group:eu" } : {})}
      empty="No node has enrolled and none sends telemetry."
    />
  );
}

const NODE_FIELDS = ["state", "group", "name", "id", "address", "version", "revision", "is", "label"] as const;

function nodeFields(n: Node) {
  return {
    state: n.state,
    group: n.group,
    name: n.name,
    id: n.id,
    address: n.address,
    version: n.version,
    revision: revisionOf(n).text,
    is: [n.managed ? "managed" : "unmanaged", ...(n.conditions ?? []).map((c) => c.kind)],
    label: Object.entries(n.labels ?? {}).map(([k, v]) => `${k}=${v}`),
  };
}

export function BackendsTable({ store, whole }: { store: Store; whole: boolean }) {
  const backends = useStore(store, (s) => s.overview?.backends) ?? NO_BACKENDS;
  const choices = useChoices(store, whole);
  const columns = useMemo(backendColumns, []);
  return (
    <Table
      caption="Backends" columns={columns} rows={backends} brief={!whole} {...choices}
      id={(b) => b.id} testid={(b) => `backend-row-${b.id}`} href={(b) => backendHref(b.id)}
      order={(a, b) => badness(a) - badness(b) || a.id.localeCompare(b.id, "en", { numeric: true })}
      {...(whole || backends.length > 20 ? { fields: (b: Backend) => ({ id: b.id, endpoint: b.endpoints ?? [] }), fieldNames: ["id", "endpoint"], hint: "billing endpoint:/v1" } : {})}
      empty="No node has called a backend yet."
    />
  );
}

function badness(b: Backend): number {
  const l = level(b.activity);
  return l === "bad" ? 0 : l === "warn" ? 1 : 2;
}
