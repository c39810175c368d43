// One node, one backend: what the event stream says of it.

import { useMemo, useState } from "preact/hooks";
import { may } from "../access";
import { drainNode, forgetNode, restartNode, revokeNode, undrainNode } from "../actions";
import type { ActivityRow, Event, LedgerEntry, Node } from "../api";
import { Act, Pending, Progress } from "../components/act";
import { Charts } from "../components/charts";
import { ActivityFacts, Fact, Facts, Gone } from "../components/facts";
import { activityColumns } from "../components/fleet";
import { StateMark, Time } from "../components/marks";
import { Ribbon } from "../components/ribbon";
import { type Column, Table } from "../components/table";
import { ago, countdown, exact, hoverTime, NONE, parseTime, plural, rate, ratio, seconds, span, windowName } from "../format";
import { navigate } from "../navigate";
import { failsFrom, leaseEnded } from "../health";
import { shade } from "../matrix";
import { stretches } from "../membership";
import { backendPath, instantPath, type Loaded, nodeCellsPath, nodeEndpointQueries, nodeEventsPath, type PromAnswer, type Vector } from "../resources";
import { backendHref, groupHref, nodeHref } from "../routes";
import { managerNow, type Store, useData, useNow, useStore } from "../store";
import { CopyBlock, joinBlock, managerAddress } from "./empty";
import { EventList } from "./events";

export function NodePage({ store, id }: { store: Store; id: string }) {
  const overview = useStore(store, (s) => s.overview);
  const cells = useData(store, nodeCellsPath(id));
  const me = useStore(store, (s) => s.me);
  const now = managerNow(store.state, Date.now());
  const n = overview?.nodes?.find((x) => x.id === id);
  if (!n) return <Gone what="node" id={id} loading={!overview} href="/nodes" all="All nodes" />;
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar">
          <h1 id="title">{n.name || n.id}</h1>
          <StateMark state={n.state} why={leaseEnded(n) ? "lease ended" : undefined} />
          <span class="aside">{n.state_cause}{parseTime(n.state_since) !== undefined && <> since <Time at={parseTime(n.state_since)} now={now} /></>}</span>
        </header>
        {!n.managed && (
          <div class="note" data-testid="unmanaged">
            <p>This gateway sends telemetry but is not enrolled: it takes no seat, gets no configuration and counts at no gate. To manage it, add this block to its <code>krakend.json</code> and start it with <code>binnacle-gateway run</code>; it keeps serving as before.</p>
            <CopyBlock text={joinBlock(managerAddress(overview?.cluster.managers ?? [], location.hostname))} />
          </div>
        )}
        {(n.conditions ?? []).map((c) => (
          <p key={c.kind} class="note"><strong>{c.kind.replaceAll("_", " ")}</strong>: {c.cause}, since <Time at={parseTime(c.since)} now={now} /></p>
        ))}
        {n.managed && <NodeActions store={store} n={n} />}
        <ActivityFacts a={n.activity} />
      </section>
      <Charts store={store} />
      <section aria-labelledby="about-title">
        <header class="bar"><h2 id="about-title">About it</h2></header>
        <Facts>
          <Fact name="Lease" testid="lease"><Lease n={n} now={now} /></Fact>
          <Fact name="Enrolled"><Time at={parseTime(n.enrolled)} now={now} /></Fact>
          <Fact name="Last poll">{parseTime(n.last_poll) === undefined ? NONE : <time title={hoverTime(parseTime(n.last_poll) ?? 0, now)}>{ago(parseTime(n.last_poll) ?? 0, now)}</time>}</Fact>
          <Fact name="Group">{n.group && may(me, "operator") ? <a href={groupHref(n.group)}>{n.group}</a> : n.group || NONE}</Fact>
          <Fact name="Address">{n.address || NONE}</Fact>
          <Fact name="Version">{n.version || NONE}</Fact>
          <Fact name="Id"><code>{n.id}</code></Fact>
          {Object.entries(n.labels ?? {}).map(([k, v]) => <Fact key={k} name={k}>{v}</Fact>)}
        </Facts>
      </section>
      <div class="pairs">
        <section aria-labelledby="calls-title">
          <header class="bar"><h2 id="calls-title">Backends it calls</h2><span class="aside">{n.activity ? windowName(n.activity.window) : ""}</span></header>
          <Pending what="Its calls" state={cells.state} problem={cells.problem} has={cells.body !== undefined}>
            <RowsTable rows={cells.body?.rows ?? []} by="backend" nameOf={(i) => i} />
          </Pending>
        </section>
        <NodeEndpoints store={store} id={id} />
      </div>
      <div class="pairs">
        {n.ledger && <LedgerTable n={n} now={now} />}
        <History store={store} n={n} />
      </div>
    </>
  );
}

/** Drain, restart, forget: each asks once, and says how it goes. */
function NodeActions({ store, n }: { store: Store; n: Node }) {
  const me = useStore(store, (s) => s.me);
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? [];
  const events = useStore(store, (s) => s.events);
  const begun = useStore(store, (s) => s.doing.get(drainNode(n.id).key)?.at);
  if (!may(me, "operator")) return null;
  const name = n.name || n.id;
  const others = nodes.filter((x) => x.managed && x.id !== n.id && x.group === n.group && x.state === "alive" && !draining(x)).length;
  const traffic = rate(n.activity?.requests_per_second);
  const gone = n.state === "down" || n.state === "left" || n.state === "unreachable";
  return (
    <div class="actions" data-testid="node-actions">
      <div class="row">
        {draining(n) ? (
          <Act store={store} action={undrainNode(n.id)} label={`Let ${name} serve again`} effect={<p>{name} turns ready, and load balancers send it its share of the traffic again.</p>} testid="undrain" />
        ) : (
          <Act
            store={store} action={drainNode(n.id)} label={`Drain ${name}`} danger testid="drain"
            effect={
              <>
                <p><strong>{traffic}</strong> move to {others === 0 ? <strong class="tone-bad">no other node of group {n.group}: its clients are left without one</strong> : <strong>{plural(others, "node")}</strong>}.</p>
                <p>{name} stays up, not ready, and answers <code>Connection: close</code> until it is let in again.</p>
              </>
            }
          />
        )}
        <Act
          store={store} action={restartNode(n.id)} label={`Restart ${name}`} disabled={gone} testid="restart"
          effect={<p>A second worker of {name} takes over its sockets, then the first finishes what it has and ends: <strong>{traffic}</strong> go on, and no request should fail.</p>}
        />
        {may(me, "admin") && (
          <span class="apart">
            <Act
              store={store} action={forgetNode(n.id)} label={`Forget ${name}`} danger testid="forget" after={(d) => d.state === "done" && navigate(store, "/nodes")}
              effect={<p>{name} loses its identity{gone ? "" : ` and falls back to its own file and the fallback rate; it serves ${traffic} now`}. A valid join token enrolls it anew. The gossip key is changed on all other nodes.</p>}
            />
            <Act
              store={store} action={revokeNode(n.id)} label={`Bar ${name}`} danger after={(d) => d.state === "done" && navigate(store, "/nodes")}
              effect={<p>The key and the id of {name} are barred <strong>for good</strong>: it never enrolls with them again{gone ? "" : `. It serves ${traffic} now`}.</p>}
              testid="revoke"
            />
          </span>
        )}
      </div>
      <Progress store={store} of={drainNode(n.id).key} done={() => (draining(n) ? `Draining: ${n.activity && n.activity.requests_per_second > 0 ? `${traffic} still arrive (mean of the last minute)` : "no requests arrive any more"}.` : `Ordered ${begun === undefined ? "" : span(Date.now() - begun)} ago; waiting for ${name} to say so.`)} />
      <Progress store={store} of={restartNode(n.id).key} done={(d) => restartWords(events, n.id, name, d.at)} />
      <Progress store={store} of={forgetNode(n.id).key} />
    </div>
  );
}

const draining = (n: Node): boolean => (n.conditions ?? []).some((c) => c.kind === "draining");

/** A restart is done when the node reports it. */
function restartWords(events: readonly Event[], id: string, name: string, at: number): string {
  const reported = events.find((e) => e.kind === "node.restarted" && e.node === id && Date.parse(e.time) > at - 2000);
  return reported ? `${name} reports the restart done, after ${span(Math.max(0, Date.parse(reported.time) - at))}.` : `Ordered; waiting for ${name} to report it done.`;
}

interface Endpoint {
  method: string;
  route: string;
  requests: number;
  errors: number;
  clientErrors: number;
  p99: number | undefined;
}

/** Adds the answers of nodeEndpointQueries up by endpoint. */
export function endpointsOf(counts: Loaded<PromAnswer<Vector>>, p99: Loaded<PromAnswer<Vector>>): Endpoint[] {
  const by = new Map<string, Endpoint>();
  const at = (m: Record<string, string>): Endpoint => {
    const [method, route] = [m.http_request_method ?? "", m.http_route ?? ""];
    const key = `${method} ${route}`;
    const have = by.get(key) ?? { method, route, requests: 0, errors: 0, clientErrors: 0, p99: undefined };
    by.set(key, have);
    return have;
  };
  for (const { metric, value } of counts.body?.data?.result ?? []) {
    const e = at(metric);
    const n = Number(value[1]) || 0;
    const status = Number(metric.http_response_status_code ?? 0);
    e.requests += n;
    if (status >= 500 || status === 0) e.errors += n;
    else if (status >= 400) e.clientErrors += n;
  }
  for (const { metric, value } of p99.body?.data?.result ?? []) {
    const v = Number(value[1]);
    if (Number.isFinite(v) && by.has(`${metric.http_request_method ?? ""} ${metric.http_route ?? ""}`)) at(metric).p99 = v;
  }
  return [...by.values()].sort((a, b) => b.requests - a.requests);
}

const ENDPOINT_COLUMNS: readonly Column<Endpoint>[] = [
  { key: "endpoint", label: "Endpoint", sort: (e) => e.route, cell: (e) => <code>{e.method} {e.route || "(no route)"}</code> },
  { key: "rate", label: "Requests", num: true, sort: (e) => e.requests, cell: (e) => rate(e.requests / 300) },
  { key: "ratio", label: "Error ratio", num: true, sort: (e) => e.errors / e.requests, cell: (e) => ratio(e.requests > 0 ? e.errors / e.requests : null) },
  { key: "client", label: "4xx", num: true, sort: (e) => e.clientErrors, cell: (e) => exact(e.clientErrors) },
  { key: "p99", label: "p99", num: true, sort: (e) => e.p99, cell: (e) => seconds(e.p99) },
];

function NodeEndpoints({ store, id }: { store: Store; id: string }) {
  const q = useMemo(() => nodeEndpointQueries(id), [id]);
  const counts = useData(store, instantPath(q.counts));
  const p99 = useData(store, instantPath(q.p99));
  const rows = useMemo(() => endpointsOf(counts, p99), [counts, p99]);
  const [sort, setSort] = useState("");
  return (
    <section aria-labelledby="endpoints-title">
      <header class="bar"><h2 id="endpoints-title">Its endpoints</h2><span class="aside">last 5 min</span></header>
      <Pending what="Its endpoints" state={counts.state} problem={counts.problem} has={counts.body !== undefined}>
        <Table caption="Endpoints" columns={ENDPOINT_COLUMNS} rows={rows} id={(e) => `${e.method} ${e.route}`} testid={(e) => `endpoint-row-${e.method} ${e.route}`} filter="" onFilter={() => undefined} sort={sort} onSort={setSort} brief empty="No requests in the last 5 min." />
      </Pending>
    </section>
  );
}

/** What is left of the lease, counted down. */
function Lease({ n, now }: { n: Node; now: number }) {
  useNow();
  const expires = parseTime(n.lease?.expires);
  if (expires === undefined) return <span class={n.managed ? "tone-bad" : undefined}>{n.managed ? "none" : NONE}</span>;
  const holds = expires > now && !leaseEnded(n);
  return <time dateTime={new Date(expires).toISOString()} title={hoverTime(expires, now)} class={holds ? undefined : "tone-bad"}>{holds ? `ends in ${countdown(expires - now)}${n.lease?.state === "warning" ? ", and is not renewed" : ""}` : `ended ${span(Math.max(0, now - expires))} ago`}</time>;
}

const NO_EVENTS: readonly Event[] = [];

/** How the node stood over time, and its events: those of the log with those that came since. */
function History({ store, n }: { store: Store; n: Node }) {
  const past = useData(store, nodeEventsPath(n.id)).body?.items ?? NO_EVENTS;
  const live = useStore(store, (s) => s.events);
  const now = managerNow(store.state, Date.now());
  const events = useMemo(() => {
    const by = new Map([...past, ...live.filter((e) => e.node === n.id)].map((e) => [e.id, e]));
    return [...by.values()].sort((a, b) => b.id - a.id);
  }, [past, live, n.id]);
  return (
    <section aria-labelledby="events-title" data-testid="history">
      <header class="bar"><h2 id="events-title">Its history</h2></header>
      {n.managed && <Ribbon list={stretches(events, n.state, now)} now={now} />}
      <EventList store={store} keep={always} list={events} />
    </section>
  );
}

const always = (): boolean => true;

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
  const row = useData(store, backendPath(id));
  const b = overview?.backends?.find((x) => x.id === id);
  if (!b) return <Gone what="backend" id={id} loading={!overview} href="/backends" all="All backends" />;
  const names = new Map((overview?.nodes ?? []).map((n) => [n.id, n.name || n.id]));
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar"><h1 id="title">{b.id}</h1></header>
        <ActivityFacts a={b.activity} calls />
        {b.endpoints && b.endpoints.length > 0 && <p class="calledby">Called by {b.endpoints.map((e, i) => <span key={e}>{i > 0 && ", "}<code>{e}</code></span>)}</p>}
      </section>
      <Charts store={store} />
      <section aria-labelledby="nodes-title">
        <header class="bar"><h2 id="nodes-title">Seen from each node</h2><span class="aside">{failsFrom(b, (i) => names.get(i) ?? i) ? `fails${failsFrom(b, (i) => names.get(i) ?? i)}` : ""}</span></header>
        <Pending what="Its callers" state={row.state} problem={row.problem} has={row.body !== undefined || b.nodes !== undefined}>
          <RowsTable rows={row.body?.nodes ?? b.nodes ?? []} by="node" nameOf={(i) => names.get(i) ?? i} />
        </Pending>
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
      filter="" onFilter={() => undefined} sort={sort} onSort={setSort} order={(a, b) => shade(b.activity ?? undefined) - shade(a.activity ?? undefined) || nameOf(key(a)).localeCompare(nameOf(key(b)), "en", { numeric: true })}
      empty="No calls seen."
    />
  );
}
