// The configuration lines of the cluster: its groups, and what was rolled out
// last.

import { Pending } from "../components/act";
import { Time } from "../components/marks";
import { RolloutMark, RolloutProgress } from "../components/steps";
import { type Column, Table } from "../components/table";
import type { Group, Rollout } from "../api";
import { exact, NONE, parseTime, rate, ratio, span } from "../format";
import { groupsPath, rolloutsPath } from "../resources";
import { groupHref, rolloutHref } from "../routes";
import { revisionName, spread, underWay } from "../rollouts";
import { managerNow, type Store, useData, useStore } from "../store";
import { useState } from "preact/hooks";
import type { Node } from "../api";

const NO_NODES: Node[] = [];

export function ConfigPage({ store }: { store: Store }) {
  const groups = useData(store, groupsPath);
  const rollouts = useData(store, rolloutsPath);
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? NO_NODES;
  const [sort, setSort] = useState("");
  const running = new Map((rollouts.body?.items ?? []).filter((r) => underWay(r.state)).map((r) => [r.group, r]));
  const columns: Column<Group>[] = [
    { key: "name", label: "Group", sort: (g) => g.name, cell: (g) => g.name },
    { key: "desired", label: "Should run", num: true, sort: (g) => g.desired, raw: (g) => g.desired, cell: (g) => (g.desired === 0 ? "own files" : g.desired) },
    { key: "runs", label: "Runs", sort: (g) => spread(nodes, g.name).length, cell: (g) => runs(nodes, g.name) },
    { key: "nodes", label: "Nodes", num: true, sort: (g) => g.nodes, raw: (g) => g.nodes, cell: (g) => exact(g.nodes) },
    { key: "revisions", label: "Revisions", num: true, sort: (g) => g.revisions, raw: (g) => g.revisions, cell: (g) => exact(g.revisions) },
    { key: "format", label: "Format", minor: true, sort: (g) => g.format, cell: (g) => g.format },
    { key: "rate", label: "Requests", num: true, sort: (g) => g.activity?.requests_per_second, cell: (g) => rate(g.activity?.requests_per_second) },
    { key: "ratio", label: "Error ratio", num: true, sort: (g) => g.activity?.error_ratio, cell: (g) => ratio(g.activity?.error_ratio) },
    { key: "rollout", label: "Now", sort: (g) => running.get(g.name)?.started, cell: (g) => { const r = running.get(g.name); return r ? <RolloutMark r={r} /> : NONE; } },
  ];
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar"><h1 id="title">Configuration</h1></header>
        <Pending what="The groups" state={groups.state} problem={groups.problem} has={groups.body !== undefined}>
          <Table caption="Groups" columns={columns} rows={groups.body?.items ?? []} id={(g) => g.name} testid={(g) => `group-row-${g.name}`} href={(g) => groupHref(g.name)} filter="" onFilter={() => undefined} sort={sort} onSort={setSort} empty="No node has joined and nothing was uploaded yet." />
        </Pending>
      </section>
      <section aria-labelledby="rollouts-title">
        <header class="bar"><h2 id="rollouts-title">Rollouts</h2></header>
        <Pending what="The rollouts" state={rollouts.state} problem={rollouts.problem} has={rollouts.body !== undefined}>
          <RolloutList store={store} rollouts={rollouts.body?.items ?? []} withGroup />
        </Pending>
      </section>
    </>
  );
}

/** "12 on 7, 1 on 6". */
function runs(nodes: readonly Node[], group: string): string {
  const s = spread(nodes, group);
  return s.length === 0 ? NONE : s.map((x) => `${exact(x.nodes.length)} on ${x.revision === 0 ? "own file" : x.revision}`).join(", ");
}

/** Rollouts shown at once. */
const MOST = 30;

export function RolloutList({ store, rollouts, withGroup }: { store: Store; rollouts: readonly Rollout[]; withGroup: boolean }) {
  const now = managerNow(store.state, Date.now());
  const [sort, setSort] = useState("");
  const columns: Column<Rollout>[] = [
    { key: "what", label: "Rollout", sort: (r) => r.started, cell: (r) => (r.strategy === "restart" ? "Restart" : `${r.from === 0 ? "own files" : r.from} → ${r.to === 0 ? "own files" : r.to}`) },
    ...(withGroup ? [{ key: "group", label: "Group", sort: (r: Rollout) => r.group, cell: (r: Rollout) => r.group }] : []),
    { key: "state", label: "State", sort: (r) => r.state, cell: (r) => <RolloutMark r={r} /> },
    { key: "progress", label: "Nodes", sort: (r) => r.confirmed?.length, cell: (r) => <RolloutProgress r={r} /> },
    { key: "strategy", label: "Strategy", sort: (r) => r.strategy, minor: true, cell: (r) => (r.steps?.length ? `${r.steps.length} steps` : r.strategy) },
    { key: "author", label: "By", sort: (r) => r.author, minor: true, cell: (r) => r.author || NONE },
    { key: "started", label: "Started", sort: (r) => parseTime(r.started), cell: (r) => <Time at={parseTime(r.started)} now={now} /> },
    { key: "took", label: "Took", num: true, sort: (r) => took(r, now), cell: (r) => span(took(r, now)) },
  ];
  const newest = [...rollouts].sort((a, b) => (parseTime(b.started) ?? 0) - (parseTime(a.started) ?? 0)).slice(0, MOST);
  return <Table caption="Rollouts" columns={columns} rows={newest} id={(r) => r.id} testid={(r) => `rollout-row-${r.id}`} href={(r) => rolloutHref(r.id)} filter="" onFilter={() => undefined} sort={sort} onSort={setSort} brief empty={`No rollout yet: nodes run ${revisionName(0)}.`} />;
}

const took = (r: Rollout, now: number): number => (parseTime(r.ended) ?? now) - (parseTime(r.started) ?? now);
