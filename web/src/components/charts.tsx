// The three charts on one time axis: requests per second by outcome, error
// ratio, latency. They share cursor, zoom and marks; each legend is a table
// with the value under the cursor, or the newest one.

import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Event } from "../api";
import type { Exemplar } from "../exemplars";
import { clock, rate, ratio, seconds, when, windowName } from "../format";
import { may } from "../access";
import { parseLength, parseWindow, sameWindow, traceHref, type Window, WINDOWS, withoutZoom, withWindow } from "../routes";
import { type ChartData, extent, needsLog, scopeOf, stack } from "../series";
import { managerNow, type Store, useStore } from "../store";
import { navigate } from "../navigate";
import { plain } from "../words";
import { useMedia, WALL } from "./media";
import { type Dot, type Line, type Mark, Plot, PLOT_INSET } from "./plot";

const RATE_LINES: readonly Line[] = [
  { label: "ok", stroke: "ok", fill: "ok-fill" },
  { label: "client error", stroke: "client-error", fill: "client-error-fill" },
  { label: "server error", stroke: "error", fill: "error-fill" },
  { label: "limited", stroke: "limited", fill: "limited-fill" },
];
const ERROR_LINES: readonly Line[] = [{ label: "error ratio", stroke: "error", fill: "ratio-fill" }];
const LATENCY_LINES: readonly Line[] = [
  { label: "p99", stroke: "p99", width: 1.5 },
  { label: "p95", stroke: "p95" },
  { label: "p50", stroke: "p50", dash: [4, 3] },
];

/** Events drawn as lines: what changes the fleet. At most MOST_MARKS, the newest. */
const MARKED = /^(rollout|node|license|revision|group)\./;
const MOST_MARKS = 60;

/** A rate below 1/s fills no chart; an error ratio below 1 % is no wall; latency starts at 1 ms. */
const LEAST = { rate: 1, ratio: 0.01, latency: 0.001 };

export function Charts({ store }: { store: Store }) {
  const charts = useStore(store, (s) => s.charts);
  const route = useStore(store, (s) => s.route);
  const events = useStore(store, (s) => s.events);
  const me = useStore(store, (s) => s.me);
  const nodes = useStore(store, (s) => s.overview?.nodes);
  const names = useMemo(() => new Map((nodes ?? []).map((n) => [n.id, n.name || n.id])), [nodes]);
  const [hover, setHover] = useState<number>();
  const data = charts.data;
  const w = parseWindow(route.query);

  const marks = useMemo(() => marksOf(events, data), [events, data]);
  const zoom = (from: number, to: number): void => navigate(store, withWindow(route.query, { kind: "fixed", from, to }));
  const reset = (): void => {
    if (w.kind === "fixed") navigate(store, withoutZoom(route.query));
  };
  const at = data && hover !== undefined ? data.time[hover] : undefined;
  const state = charts.state === "failed" && charts.problem !== "" ? `The history cannot be read: ${charts.problem}.${data ? " What this page has seen is still drawn." : ""}` : "";

  return (
    <section class="charts" aria-labelledby="charts-title">
      <header class="bar">
        <h2 id="charts-title">{scopeOf(route)?.calls ? "Calls" : "Traffic"}</h2>
        <WindowPicker store={store} />
        <span class="cursor-time" aria-live="off">
          {at !== undefined && data ? timeAt(at, data) : w.kind === "fixed" && data ? `${timeAt(data.from, data)} – ${timeAt(data.to, data)}` : ""}
        </span>
      </header>
      {state && <p class="problem" role="status">{state}</p>}
      {data ? (
        <Three slow={may(me, "operator", "traces:read")} exemplars={charts.exemplars} calls={scopeOf(route)?.calls ?? false} data={data} hover={hover} setHover={setHover} marks={marks} events={events} names={names} zoom={zoom} reset={reset} now={managerNow(store.state, Date.now())} />
      ) : (
        <p class="waiting">{charts.state === "failed" ? "Nothing to draw yet." : "Reading the history…"}</p>
      )}
    </section>
  );
}

function timeAt(t: number, data: ChartData): string {
  return data.to - data.from > 86400 ? when(t * 1000, Date.now()) : clock(t * 1000, data.to - data.from <= 3600);
}

/** The marks of the events within a span of time. */
export function marksOf(events: readonly Event[], data: Pick<ChartData, "from" | "to"> | undefined): Mark[] {
  if (!data) return [];
  return events
    .filter((e) => MARKED.test(e.kind))
    .map((e) => ({ id: e.id, time: Date.parse(e.time) / 1000 }))
    .filter((m) => m.time >= data.from && m.time <= data.to)
    .slice(0, MOST_MARKS);
}

/** Links to the windows; the current one is marked. */
export function WindowPicker({ store }: { store: Store }) {
  const route = useStore(store, (s) => s.route);
  const w = parseWindow(route.query);
  const named = WINDOWS.some((n) => w.kind === "live" && n.seconds === w.seconds);
  return (
    <>
    <nav class="windows" aria-label="Window of time">
      {WINDOWS.map((n) => (
        <a key={n.key} href={location.pathname + withWindow(route.query, { kind: "live", seconds: n.seconds })} aria-current={w.kind === "live" && w.seconds === n.seconds ? "true" : undefined}>
          {n.label}
        </a>
      ))}
      {w.kind === "live" && !named && <a href={location.pathname + location.search} aria-current="true">{windowName(w.seconds)}</a>}
      <CustomWindow store={store} w={w} key={JSON.stringify(w)} />
    </nav>
    <LiveToggle store={store} w={w} />
    </>
  );
}

/** Holds the window still, at an address that can be shared, or lets it follow the time again. */
function LiveToggle({ store, w }: { store: Store; w: Window }) {
  const live = w.kind === "live";
  const turn = (): void => {
    const { charts: { data }, route } = store.state;
    const to = Math.floor(data?.to ?? managerNow(store.state, Date.now()) / 1000);
    navigate(store, live ? withWindow(route.query, { kind: "fixed", from: Math.floor(data?.from ?? to - w.seconds), to }) : withoutZoom(route.query));
  };
  return (
    <button type="button" class="livetoggle" aria-pressed={live} onClick={turn} title={live ? "Hold this window still" : "Follow the time again; a double click on a chart does the same"} data-testid="live-toggle">
      <span class="dot" aria-hidden="true" />Live
    </button>
  );
}

/** Local time as a datetime-local input has it. */
const local = (t: number): string => new Date(t * 1000 - new Date(t * 1000).getTimezoneOffset() * 60_000).toISOString().slice(0, 19);

/** A window of the reader's own: a length, or from and to. */
function CustomWindow({ store, w }: { store: Store; w: Window }) {
  const now = managerNow(store.state, Date.now()) / 1000;
  const [last, setLast] = useState("");
  const [from, setFrom] = useState(local(w.kind === "fixed" ? w.from : now - w.seconds));
  const [to, setTo] = useState(local(w.kind === "fixed" ? w.to : now));
  const seconds = parseLength(last);
  const fixed: Window = { kind: "fixed", from: Date.parse(from) / 1000, to: Date.parse(to) / 1000 };
  const next: Window | undefined = last !== "" ? (seconds === undefined ? undefined : { kind: "live", seconds }) : fixed.to - fixed.from >= 10 ? fixed : undefined;
  const apply = (e: SubmitEvent): void => {
    e.preventDefault();
    (e.currentTarget as Element).closest("details")?.removeAttribute("open");
    if (next && !sameWindow(next, w)) navigate(store, withWindow(store.state.route.query, next));
  };
  return (
    <details class="custom">
      <summary>Custom</summary>
      <form onSubmit={apply}>
        <label>Last <input value={last} placeholder="15m, 6h, 7d" size={10} onInput={(e) => setLast(e.currentTarget.value)} /></label>
        <span class="aside">or</span>
        <label>From <input type="datetime-local" step="1" value={from} disabled={last !== ""} onInput={(e) => setFrom(e.currentTarget.value)} /></label>
        <label>To <input type="datetime-local" step="1" value={to} disabled={last !== ""} onInput={(e) => setTo(e.currentTarget.value)} /></label>
        <button type="submit" class="button button-primary" disabled={!next}>Show</button>
      </form>
    </details>
  );
}

interface ThreeProps {
  /** The visitor may look for traces. */
  slow: boolean;
  exemplars: readonly Exemplar[];
  calls: boolean;
  data: ChartData;
  hover: number | undefined;
  setHover: (i: number | undefined) => void;
  marks: readonly Mark[];
  events: readonly Event[];
  names: ReadonlyMap<string, string>;
  zoom: (from: number, to: number) => void;
  reset: () => void;
  now: number;
}

function Three({ slow, exemplars, calls, data, hover, setHover, marks, events, names, zoom, reset, now }: ThreeProps) {
  const withLimited = data.limited.some((v) => v !== null && v > 0);
  const lines = useMemo(() => (withLimited ? RATE_LINES : RATE_LINES.slice(0, 3)), [withLimited]);
  const rates = useMemo(() => {
    const columns = [data.ok, data.clientError, data.error, data.limited].slice(0, lines.length);
    return { plain: columns, drawn: [data.time, ...stack(columns)] };
  }, [data, lines]);
  const errors = useMemo(() => [data.time, data.errorRatio], [data]);
  const latency = useMemo(() => [data.time, data.p99, data.p95, data.p50], [data]);
  const log = needsLog(extent([data.p50, data.p95, data.p99, exemplars.map((e) => e.value)]));
  const scale = useMedia(WALL) ? 1.75 : 1;
  const dots = useMemo(() => exemplars.map(dotOf), [exemplars]);
  const i = hover ?? lastKnown(data);
  const shared = { from: data.from, to: data.to, marks, onHover: setHover, onZoom: zoom, onReset: reset };
  const pick = (c: readonly (number | null)[]): number | null => (i === undefined ? null : (c[i] ?? null));
  const total = rates.plain.reduce<number | null>((sum, c) => {
    const v = pick(c);
    return v === null ? sum : (sum ?? 0) + v;
  }, null);

  return (
    <div class="three">
      <Chart title={calls ? "Calls" : "Requests"} above={<Marks marks={marks} events={events} data={data} names={names} now={now} />} legend={[...lines.map((l, k) => ({ line: l, value: rate(pick(rates.plain[k] ?? [])) })), { value: rate(total), name: "all" }]}>
        <Plot {...shared} testid="chart-rps" label={`${calls ? "Calls" : "Requests"} per second by outcome; now ${rate(total)}`} lines={lines} columns={rates.drawn} stacked atLeast={LEAST.rate} format={rate} height={132 * scale} withTimes={false} />
      </Chart>
      <Chart title="Errors" legend={ERROR_LINES.map((l) => ({ line: l, value: ratio(pick(data.errorRatio)) }))}>
        <Plot {...shared} testid="chart-errors" label={`Error ratio; now ${ratio(pick(data.errorRatio))}`} lines={ERROR_LINES} columns={errors} atLeast={LEAST.ratio} format={ratio} height={92 * scale} withTimes={false} />
      </Chart>
      <Chart title="Latency" below={slow && slowest(data, i)} legend={[data.p99, data.p95, data.p50].map((c, k) => ({ line: LATENCY_LINES[k] as Line, value: seconds(pick(c)) }))}>
        <Plot {...shared} testid="chart-latency" label={`Latency; now p99 ${seconds(pick(data.p99))}, p50 ${seconds(pick(data.p50))}`} lines={LATENCY_LINES} columns={latency} log={log} atLeast={LEAST.latency} format={seconds} height={158 * scale} withTimes dots={dots} />
      </Chart>
    </div>
  );
}

/** An exemplar as a point that leads to its trace. */
function dotOf(e: Exemplar): Dot {
  return { time: e.time, value: e.value, href: traceHref(e.trace), failed: e.failed, label: `${e.name}, ${seconds(e.value)} at ${clock(e.time * 1000, true)}${e.failed ? ", failed" : ""}: open its trace` };
}

/** A link to the traces of the window that took longer than p99 at index i. */
function slowest(data: ChartData, i: number | undefined): ComponentChildren {
  const p99 = i === undefined ? null : (data.p99[i] ?? null);
  if (p99 === null || p99 <= 0) return null;
  const q = new URLSearchParams({ service: "binnacle-gateway", min: `${Math.max(1, Math.floor(p99 * 1e6))}us`, from: String(Math.floor(data.from)), to: String(Math.ceil(data.to)) });
  return <a href={`/traces?${q}`}>Traces slower than {seconds(p99)}</a>;
}

/** The newest index at which anything is known. */
function lastKnown(data: ChartData): number | undefined {
  for (let i = data.time.length - 1; i >= 0; i--) {
    if (data.ok[i] !== null && data.ok[i] !== undefined) return i;
  }
  return undefined;
}

interface Entry {
  line?: Line;
  name?: string;
  value: string;
}

function Chart({ title, legend, above, below, children }: { title: string; legend: readonly Entry[]; above?: ComponentChildren; below?: ComponentChildren; children: ComponentChildren }) {
  return (
    <figure class="chart">
      <div class="plotbox">
        {above}
        {children}
      </div>
      <figcaption>
        <table>
          <caption>{title}</caption>
          <tbody>
            {legend.map((e) => (
              <tr key={e.line?.label ?? e.name}>
                <th scope="row">
                  <span class={`swatch swatch-${e.line?.stroke ?? "none"}`} aria-hidden="true" />
                  {e.line?.label ?? e.name}
                </th>
                <td>{e.value}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {below && <p class="below">{below}</p>}
      </figcaption>
    </figure>
  );
}

/** Small flags over the charts, one for each marked event, that say and link to it. */
export function Marks({ marks, events, data, names, now }: { marks: readonly Mark[]; events: readonly Event[]; data: Pick<ChartData, "from" | "to">; names: ReadonlyMap<string, string>; now: number }) {
  const byID = new Map(events.map((e) => [e.id, e]));
  return (
    <div class="marks" style={{ marginLeft: `${PLOT_INSET.left}px`, marginRight: `${PLOT_INSET.right}px` }}>
      {marks.map((m) => {
        const e = byID.get(m.id);
        if (!e) return null;
        const late = m.time - data.from > (data.to - data.from) / 2;
        const words = `${when(m.time * 1000, now)} ${plain(e.message, names)}`;
        return (
          <a key={m.id} class={late ? "mark mark-late" : "mark"} href={`/events?id=${m.id}`} aria-label={words} style={{ left: `${(100 * (m.time - data.from)) / (data.to - data.from)}%` }}>
            <span class="tip" role="tooltip">{words}</span>
          </a>
        );
      })}
    </div>
  );
}
