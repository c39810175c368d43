// One node, one backend: what the event stream says of it.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Activity, ActivityRow, LedgerEntry, Node } from "../api";
import { activityColumns } from "../components/fleet";
import { StateMark, Time } from "../components/marks";
import { type Column, Table } from "../components/table";
import { exact, NONE, parseTime, rate, ratio, seconds, span, windowName } from "../format";
import { backendHref, nodeHref } from "../routes";
import { managerNow, type Store, useStore } from "../store";
import { EventList } from "./events";

function Facts({ children }: { children: ComponentChildren }) {
  return <dl class="facts">{children}</dl>;
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function ActivityFacts({ a }: { a: Activity | null }) {
  if (!a) return <p class="silent">No data yet.</p>;
  return (
    <Facts>
      <Fact name={`Requests, ${windowName(a.window)}`}>{rate(a.requests_per_second)}</Fact>
      <Fact name="Error ratio">{ratio(a.error_ratio)}</Fact>
      <Fact name="Errors">{exact(a.errors)}</Fact>
      <Fact name="4xx">{exact(a.client_errors)}</Fact>
      <Fact name="p50 · p95 · p99">{a.latency ? `${seconds(a.latency.p50)} · ${seconds(a.latency.p95)} · ${seconds(a.latency.p99)}` : NONE}</Fact>
      <Fact name="Total">{exact(a.requests_total)}</Fact>
    </Facts>
  );
}

/** Says that a thing is not, or no longer, there. */
function Gone({ what, id, loading }: { what: string; id: string; loading: boolean }) {
  return loading ? (
    <p class="waiting">Waiting for the manager's first answer…</p>
  ) : (
    <section class="gone">
      <h1>There is no {what} {id}</h1>
      <p>It may have been forgotten, or has never sent anything. <a href={`/${what}s`}>All {what}s</a></p>
    </section>
  );
}

export function NodePage({ store, id }: { store: Store; id: string }) {
  const overview = useStore(store, (s) => s.overview);
  const now = managerNow(store.state, Date.now());
  const n = overview?.nodes?.find((x) => x.id === id);
  if (!n) return <Gone what="node" id={id} loading={!overview} />;
  const rows = (overview?.backends ?? []).flatMap((b): ActivityRow[] => (b.nodes ?? []).filter((r) => r.node === id).map((r) => ({ backend: b.id, activity: r.activity })));
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar">
          <h1 id="title">{n.name || n.id}</h1>
          <StateMark state={n.state} />
          <span class="aside">{n.state_cause}{parseTime(n.state_since) !== undefined && <> since <Time at={parseTime(n.state_since)} now={now} /></>}</span>
        </header>
        {!n.managed && <p class="note">This gateway sends telemetry but is not enrolled. Add the <code>@cluster</code> block to its <code>krakend.json</code> and start it with <code>binnacle-gateway run</code> to manage it.</p>}
        {(n.conditions ?? []).map((c) => (
          <p key={c.kind} class="note"><strong>{c.kind.replaceAll("_", " ")}</strong>: {c.cause}, since <Time at={parseTime(c.since)} now={now} /></p>
        ))}
        <ActivityFacts a={n.activity} />
        <Facts>
          <Fact name="Id"><code>{n.id}</code></Fact>
          <Fact name="Group">{n.group || NONE}</Fact>
          <Fact name="Address">{n.address || NONE}</Fact>
          <Fact name="Version">{n.version || NONE}</Fact>
          <Fact name="Enrolled"><Time at={parseTime(n.enrolled)} now={now} /></Fact>
          <Fact name="Last poll"><Time at={parseTime(n.last_poll)} now={now} /></Fact>
          <Fact name="Lease">{lease(n, now)}</Fact>
          {Object.entries(n.labels ?? {}).map(([k, v]) => <Fact key={k} name={k}>{v}</Fact>)}
        </Facts>
      </section>
      {n.ledger && <LedgerTable n={n} now={now} />}
      <section aria-labelledby="calls-title">
        <header class="bar"><h2 id="calls-title">Backends it calls</h2></header>
        <RowsTable rows={rows} by="backend" nameOf={(i) => i} />
      </section>
      <section aria-labelledby="events-title">
        <header class="bar"><h2 id="events-title">Its events</h2></header>
        <EventList store={store} keep={(e) => e.node === id} />
      </section>
    </>
  );
}

function lease(n: Node, now: number): string {
  const expires = parseTime(n.lease?.expires);
  if (expires === undefined) return n.managed ? "none" : NONE;
  return expires > now ? `ends in ${span(expires - now)}` : `ended ${span(now - expires)} ago`;
}

function LedgerTable({ n, now }: { n: Node; now: number }) {
  const lines: [string, LedgerEntry | null | undefined][] = [
    ["desired", n.ledger?.desired],
    ["attempted", n.ledger?.attempted],
    ["applied", n.ledger?.applied],
    ["last good", n.ledger?.last_good],
  ];
  return (
    <section aria-labelledby="ledger-title">
      <header class="bar"><h2 id="ledger-title">Configuration</h2></header>
      <div class="tablebox scroll">
        <table class="rows">
          <thead>
            <tr><th scope="col">Ledger</th><th scope="col" class="num">Revision</th><th scope="col">SHA-256</th><th scope="col">Time</th><th scope="col">Error</th></tr>
          </thead>
          <tbody>
            {lines.map(([name, e]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td class="num" data-label="Revision">{e ? (e.number === 0 ? "own file" : e.number) : NONE}</td>
                <td data-label="SHA-256"><code title={e?.sha256}>{e?.sha256 ? e.sha256.slice(0, 12) : NONE}</code></td>
                <td data-label="Time"><Time at={parseTime(e?.time)} now={now} /></td>
                <td data-label="Error" class="wrap">{e?.error ? <span class="tone-bad">{e.error}</span> : NONE}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

export function BackendPage({ store, id }: { store: Store; id: string }) {
  const overview = useStore(store, (s) => s.overview);
  const b = overview?.backends?.find((x) => x.id === id);
  if (!b) return <Gone what="backend" id={id} loading={!overview} />;
  const names = new Map((overview?.nodes ?? []).map((n) => [n.id, n.name || n.id]));
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar"><h1 id="title">{b.id}</h1></header>
        <ActivityFacts a={b.activity} />
        {b.endpoints && b.endpoints.length > 0 && <p>Called by {b.endpoints.map((e, i) => <span key={e}>{i > 0 && ", "}<code>{e}</code></span>)}</p>}
      </section>
      <section aria-labelledby="nodes-title">
        <header class="bar"><h2 id="nodes-title">Seen from each node</h2></header>
        <RowsTable rows={b.nodes ?? []} by="node" nameOf={(i) => names.get(i) ?? i} />
      </section>
    </>
  );
}

/** A row or a column of the node x backend matrix, as a table. */
function RowsTable({ rows, by, nameOf }: { rows: readonly ActivityRow[]; by: "node" | "backend"; nameOf: (id: string) => string }) {
  const [sort, setSort] = useState("");
  const key = (r: ActivityRow): string => r[by] ?? "";
  const columns: Column<ActivityRow>[] = [
    { key: "name", label: by === "node" ? "Node" : "Backend", sort: (r) => nameOf(key(r)), cell: (r) => nameOf(key(r)) },
    ...activityColumns<ActivityRow>((r) => r.activity, true),
  ];
  return (
    <Table
      caption={by === "node" ? "Nodes" : "Backends"} columns={columns} rows={rows} id={key} testid={(r) => `cell-row-${key(r)}`}
      href={(r) => (by === "node" ? nodeHref(key(r)) : backendHref(key(r)))}
      filter="" onFilter={() => undefined} sort={sort} onSort={setSort} order={(a, b) => nameOf(key(a)).localeCompare(nameOf(key(b)), "en", { numeric: true })}
      empty="No calls seen."
    />
  );
}
