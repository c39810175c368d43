// Traces: a search, what it found as points and as a table, and one trace as a
// waterfall with its attributes.

import { Fragment } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { JaegerTag, Node } from "../api";
import { Pending } from "../components/act";
import { WindowPicker } from "../components/charts";
import { Fact, Facts, Gone } from "../components/facts";
import { Shape, Time } from "../components/marks";
import { Scatter } from "../components/scatter";
import { type Column, Table } from "../components/table";
import { exact, plural, seconds } from "../format";
import { navigate } from "../navigate";
import { operationsPath, parseTraceSearch, servicesPath, tracePath, tracesPath } from "../resources";
import { nodeHref, traceHref, withKeys } from "../routes";
import { managerNow, type Store, useData, useStore } from "../store";
import { type SpanRow, tagOf, type TraceView, viewTrace } from "../trace";

export function TracesPage({ store }: { store: Store }) {
  const query = useStore(store, (s) => s.route.query);
  const search = parseTraceSearch(query);
  const services = useData(store, servicesPath);
  const operations = useData(store, search.service ? operationsPath(search.service) : undefined);
  const found = useData(store, tracesPath(query));
  const now = managerNow(store.state, Date.now());
  const traces = useMemo(() => (found.body?.data ?? []).map(viewTrace), [found.body]);
  const warning = found.body?.data?.flatMap((t) => t.warnings ?? [])[0];
  const sort = query.get("sort") ?? "";
  const submit = (e: SubmitEvent): void => {
    e.preventDefault();
    const form = new FormData(e.currentTarget as HTMLFormElement);
    const value = (k: string): string => String(form.get(k) ?? "").trim();
    const to = withKeys(query, { service: value("service"), operation: value("operation"), tags: value("tags"), min: value("min"), max: value("max"), limit: value("limit") === "50" ? "" : value("limit") });
    if (to === (location.search === "" ? "" : location.search)) store.readAgain();
    else navigate(store, to);
  };
  return (
    <section aria-labelledby="title">
      <header class="bar">
        <h1 id="title">Traces</h1>
        <WindowPicker store={store} />
      </header>
      <form class="panel search" onSubmit={submit} key={query.toString()} data-testid="trace-search">
        <label>Service
          <select name="service" value={search.service} onChange={(e) => navigate(store, withKeys(query, { service: e.currentTarget.value, operation: "" }))}>
            <option value="">any</option>
            {options(services.body?.data, search.service).map((s) => <option key={s} value={s}>{s}</option>)}
          </select>
        </label>
        <label>Operation
          <select name="operation" value={search.operation}>
            <option value="">any</option>
            {options(operations.body?.data, search.operation).map((s) => <option key={s} value={s}>{s}</option>)}
          </select>
        </label>
        <label class="grow">Attributes <input name="tags" value={search.tags} placeholder="http.route=/users/{id} http.response.status_code=500 error=true" spellcheck={false} data-testid="trace-tags" /></label>
        <label>Longer than <input name="min" value={search.min} placeholder="100ms" size={8} pattern="[0-9.]+(ns|us|µs|ms|s|m)" title="a duration such as 100ms or 1.5s" data-testid="trace-min" /></label>
        <label>Shorter than <input name="max" value={search.max} placeholder="2s" size={8} pattern="[0-9.]+(ns|us|µs|ms|s|m)" title="a duration such as 100ms or 1.5s" /></label>
        <label>At most <input name="limit" type="number" min={1} max={500} value={search.limit} /></label>
        <button type="submit" class="button button-primary" data-testid="trace-find">Find</button>
        <a class="button button-plain" href={withKeys(query, { tags: "error=true" }) || "/traces"}>Only failed</a>
      </form>
      {services.state === "failed" && <p class="problem">The services cannot be read: {services.problem}.</p>}
      <Pending what="The traces" state={found.state} problem={found.problem} has={found.body !== undefined}>
        {warning && <p class="note">{warning[0]?.toUpperCase()}{warning.slice(1)}.</p>}
        {traces.length > 0 && <Scatter traces={traces} />}
        <Table
          caption="Traces" columns={columns(now)} rows={traces} id={(t) => t.id} testid={(t) => `trace-row-${t.id}`} href={(t) => traceHref(t.id)}
          filter="" onFilter={() => undefined} sort={sort} onSort={(s) => navigate(store, withKeys(query, { sort: s }), true)} order={(a, b) => b.start - a.start}
          empty="Nothing found. Widen the window, or ask for less; gateways keep one trace in a hundred unless told otherwise."
        />
      </Pending>
    </section>
  );
}

/** The names known, and the one asked for although it is not. */
const options = (known: readonly string[] | null | undefined, asked: string): readonly string[] => (asked !== "" && !known?.includes(asked) ? [...(known ?? []), asked] : (known ?? []));

function columns(now: number): Column<TraceView>[] {
  return [
    { key: "name", label: "Trace", sort: (t) => t.name, cell: (t) => <><Shape tone={t.errors > 0 ? "bad" : "good"} /> {t.name}</> },
    { key: "service", label: "Service", sort: (t) => t.service, cell: (t) => t.service },
    { key: "status", label: "Status", num: true, sort: (t) => Number(t.status), cell: (t) => <span class={Number(t.status) >= 500 ? "tone-bad" : undefined}>{t.status || "–"}</span> },
    { key: "duration", label: "Duration", num: true, sort: (t) => t.duration, raw: (t) => t.duration, cell: (t) => seconds(t.duration / 1e6) },
    { key: "spans", label: "Spans", num: true, sort: (t) => t.rows.length, cell: (t) => exact(t.rows.length) },
    { key: "errors", label: "Failed spans", num: true, sort: (t) => t.errors, cell: (t) => <span class={t.errors > 0 ? "tone-bad" : undefined}>{exact(t.errors)}</span> },
    { key: "id", label: "Id", minor: true, sort: (t) => t.id, cell: (t) => <code>{t.id.slice(0, 16)}</code> },
    { key: "start", label: "Begun", sort: (t) => t.start, cell: (t) => <Time at={t.start / 1000} now={now} exact /> },
  ];
}

const NO_NODES: Node[] = [];

export function TracePage({ store, id }: { store: Store; id: string }) {
  const got = useData(store, tracePath(id));
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? NO_NODES;
  const query = useStore(store, (s) => s.route.query);
  const trace = got.body?.data?.[0];
  const view = useMemo(() => (trace ? viewTrace(trace) : undefined), [trace]);
  const now = managerNow(store.state, Date.now());
  if (!trace || !view) return got.state === "failed" && got.status !== 404 ? <Pending what="The trace" state="failed" problem={got.problem} has={false}>{null}</Pending> : <Gone what="trace" id={id} loading={got.state === "loading"} href="/traces" all="Find traces" />;
  const chosen = query.get("span") ?? view.rows[0]?.span.spanID ?? "";
  const row = view.rows.find((r) => r.span.spanID === chosen);
  const process = row ? trace.processes[row.span.processID] : undefined;
  const instance = tagOf(process?.tags, "service.instance.id");
  const node = nodes.find((n) => n.id === instance);
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar"><h1 id="title"><span class="crumb"><a href="/traces">Traces</a> / </span>{view.name}</h1></header>
        <Facts>
          <Fact name="Begun"><Time at={view.start / 1000} now={now} exact /></Fact>
          <Fact name="Duration">{seconds(view.duration / 1e6)}</Fact>
          <Fact name="Spans" testid="trace-spans">{exact(view.rows.length)}</Fact>
          <Fact name="Failed">{exact(view.errors)}</Fact>
          <Fact name="Services">{view.services.join(", ")}</Fact>
          <Fact name="Id"><code>{view.id}</code></Fact>
        </Facts>
        {view.orphans > 0 && <p class="note">{plural(view.orphans, "span")} {view.orphans === 1 ? "names a parent" : "name parents"} that {view.orphans === 1 ? "is" : "are"} not here: the caller's own spans, or ones that have not arrived.</p>}
      </section>
      <div class="tracebox">
        <section aria-label="Waterfall"><Waterfall view={view} chosen={chosen} choose={(s) => navigate(store, withKeys(query, { span: s }), true)} /></section>
        {row && (
          <section class="panel spanbox" aria-labelledby="span-title" data-testid="span-details">
            <h2 id="span-title">{row.span.operationName}</h2>
            <p class="aside">{row.service} · {seconds(row.span.duration / 1e6)}, from {seconds((row.span.startTime - view.start) / 1e6)} on</p>
            {(row.span.warnings ?? []).map((w) => <p key={w} class="note">{w}</p>)}
            <Tags name="Attributes" tags={row.span.tags} />
            {(row.span.logs ?? []).map((l, i) => <Tags key={i} name={`Event at ${seconds((l.timestamp - view.start) / 1e6)}`} tags={l.fields} />)}
            {node && <p>On node <a href={nodeHref(node.id)}>{node.name || node.id}</a></p>}
            <Tags name="Resource" tags={process?.tags ?? []} />
          </section>
        )}
      </div>
    </>
  );
}

/** A name with dots may break after each of them, and nowhere else. */
const breakable = (key: string) => key.split(/(?<=[._])/).map((part, i) => <Fragment key={i}>{i > 0 && <wbr />}{part}</Fragment>);

function Tags({ name, tags }: { name: string; tags: readonly JaegerTag[] | null | undefined }) {
  if (!tags || tags.length === 0) return null;
  return (
    <>
      <h3>{name}</h3>
      <dl class="tags">
        {tags.map((t, i) => (
          <div key={`${t.key}${i}`}><dt>{breakable(t.key)}</dt><dd>{String(t.value)}</dd></div>
        ))}
      </dl>
    </>
  );
}

/** Spans drawn at once; more of a trace than this is said and left out. */
const MOST_SPANS = 1000;

function Waterfall({ view, chosen, choose }: { view: TraceView; chosen: string; choose: (spanID: string) => void }) {
  const [folded, setFolded] = useState<ReadonlySet<string>>(new Set());
  const rows = useMemo(() => visible(view.rows, folded), [view, folded]);
  const toggle = (id: string): void => setFolded(folded.has(id) ? new Set([...folded].filter((x) => x !== id)) : new Set([...folded, id]));
  const at = (us: number): string => `${((100 * us) / Math.max(1, view.duration)).toFixed(3)}%`;
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  return (
    <div class="waterfall" data-testid="waterfall">
      <div class="ticks" aria-hidden="true">
        {ticks.map((t) => <span key={t} style={{ left: `${t * 100}%` }}>{seconds((t * view.duration) / 1e6)}</span>)}
      </div>
      <ul>
        {rows.slice(0, MOST_SPANS).map((r) => (
          <li key={r.span.spanID} class={r.span.spanID === chosen ? "span chosen" : "span"} data-testid={`span-${r.span.spanID}`}>
            <div class="spanname" style={{ paddingLeft: `${Math.min(r.depth, 12) * 14}px` }}>
              {r.children > 0 ? <button type="button" class="fold" aria-expanded={!folded.has(r.span.spanID)} aria-label={`Children of ${r.span.operationName}`} onClick={() => toggle(r.span.spanID)}><span aria-hidden="true">{folded.has(r.span.spanID) ? "▸" : "▾"}</span></button> : <span class="fold" />}
              <button type="button" class="spanbutton" onClick={() => choose(r.span.spanID)} aria-pressed={r.span.spanID === chosen} title={`${r.service}: ${r.span.operationName}`}>
                {r.failed && <><Shape tone="bad" /><span class="sr">failed: </span></>}
                {r.span.operationName} <span class="aside">{r.service}</span>
              </button>
            </div>
            <div class="spanline" onClick={() => choose(r.span.spanID)}>
              <span class={`bar-of ${r.failed ? "bar-failed" : barClass(r)}`} style={{ left: at(r.span.startTime - view.start), width: at(r.span.duration) }} />
              <span class={r.span.startTime - view.start > view.duration * 0.6 ? "took took-left" : "took"} style={r.span.startTime - view.start > view.duration * 0.6 ? { right: at(view.duration - (r.span.startTime - view.start)) } : { left: at(Math.min(view.duration, r.span.startTime - view.start + r.span.duration)) }}>{seconds(r.span.duration / 1e6)}</span>
            </div>
          </li>
        ))}
      </ul>
      {rows.length > MOST_SPANS && <p class="aside">{exact(rows.length - MOST_SPANS)} more spans are left out: fold what you do not need.</p>}
    </div>
  );
}

const barClass = (r: SpanRow): string => (tagOf(r.span.tags, "span.kind") === "client" ? "bar-client" : "bar-server");

/** The rows that no folded span hides. */
function visible(rows: readonly SpanRow[], folded: ReadonlySet<string>): SpanRow[] {
  const out: SpanRow[] = [];
  let hiddenBelow = Infinity;
  for (const r of rows) {
    if (r.depth > hiddenBelow) continue;
    hiddenBelow = folded.has(r.span.spanID) ? r.depth : Infinity;
    out.push(r);
  }
  return out;
}
