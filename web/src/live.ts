// Keeps the store up to date: one event stream, the charts' history by PromQL,
// the event log, and what else the view needs. Everything stops while nobody looks at the page, and comes
// back at once when somebody does.

import { may } from "./access";
import type { Event, Overview } from "./api";
import { CallError, listEvents, queryExemplars, queryRange, send, whoAmI } from "./client";
import { exemplarQuery, pickExemplars, spansToRead } from "./exemplars";
import { LOADING, type Need, needs } from "./resources";
import { parseWindow, sameWindow, type Window } from "./routes";
import { chartData, chartFromRecent, queries, rangeOf, refreshEvery, type Scope, scopeOf } from "./series";
import { managerNow, NO_CHARTS, type State, type Store } from "./store";

/** A stream that says nothing for so long is taken as dead: five steps. */
const SILENCE_MS = 10_000;
/** Retries begin here, double, and stay below MAX_RETRY_MS, with jitter. */
const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 15_000;
/** A hidden page lets go of its stream after this long. */
const HIDDEN_MS = 30_000;
/** The stream brings events; the log is asked this often for one that it lost. */
const EVENTS_MS = 60_000;
/** Exemplars are read at most so often. */
const EXEMPLARS_MS = 15_000;
/** How many events are read at first. */
const FIRST_EVENTS = 200;

/** The wait before try number n (from 0); random is in [0, 1). */
export function retryDelay(n: number, random: number): number {
  const full = Math.min(MAX_RETRY_MS, MIN_RETRY_MS * 2 ** n);
  return full / 2 + (full / 2) * random;
}

export class Live {
  readonly #store: Store;
  #stream: EventSource | undefined;
  #tries = 0;
  #retry: number | undefined;
  #watchdog: number | undefined;
  #hide: number | undefined;
  #paused = false;
  #chartsTimer: number | undefined;
  #eventsTimer: number | undefined;
  #abortCharts = new AbortController();
  #abort = new AbortController();
  #window: Window | undefined;
  #scope: Scope | undefined;
  #exemplarsAt = 0;
  /** The end of the last reading, Unix seconds. */
  #exemplarsTo = 0;
  readonly #readers = new Map<string, Reader>();
  #seen: Pick<State, "route" | "me" | "data" | "turn" | "undated"> | undefined;
  #fleet = "";

  constructor(store: Store) {
    this.#store = store;
  }

  /** Starts, and follows the store's route for the window of the charts. Called once. */
  start(): void {
    document.addEventListener("visibilitychange", () => this.#visibility());
    // A page that is left may be kept for the way back, its streams with it: a
    // few of those use up all connections that a browser opens to one host.
    addEventListener("pagehide", () => this.#pause());
    addEventListener("pageshow", (e) => {
      if (e.persisted && this.#paused) this.#resume();
    });
    this.#resume();
    this.#store.subscribe(() => this.#follow());
  }

  #follow(): void {
    if (this.#paused) return;
    const { route, me, data, turn, undated } = this.#store.state;
    const w = parseWindow(route.query);
    const scope = scopeOf(route);
    const another = this.#scope?.matchers !== scope?.matchers || this.#scope?.rollup !== scope?.rollup;
    if (this.#window === undefined || !sameWindow(this.#window, w) || another) {
      this.#window = w;
      this.#scope = scope;
      if (another) this.#store.set({ charts: NO_CHARTS });
      this.#exemplarsAt = 0;
      this.#exemplarsTo = 0;
      void this.#readCharts(true);
    }
    void this.#readExemplars();
    // How large the fleet is decides about a few needs; what it does, about none.
    const { overview } = this.#store.state;
    const fleet = `${overview?.nodes?.length ?? 0}/${(overview?.backends ?? []).reduce((n, b) => n + b.callers, 0)}`;
    const seen = this.#seen;
    if (seen && seen.route === route && seen.me === me && seen.data === data && seen.turn === turn && seen.undated === undated && this.#fleet === fleet) return;
    this.#seen = { route, me, data, turn, undated };
    this.#fleet = fleet;
    this.#read(seen !== undefined && seen.turn !== turn);
  }

  /** Brings the readers in line with what the view needs; with again set all of them read at once. */
  #read(again: boolean): void {
    const s = this.#store.state;
    const wanted = new Map(needs({ ...s, nodes: s.overview?.nodes ?? [], backends: s.overview?.backends ?? [] }).map((n) => [n.path, n]));
    for (const [path, reader] of this.#readers) {
      if (wanted.has(path)) continue;
      reader.stop();
      this.#readers.delete(path);
    }
    const fresh: Reader[] = [];
    for (const [path, need] of wanted) {
      const have = this.#readers.get(path);
      if (have && !again) continue;
      const reader = have ?? new Reader(this.#store, need);
      this.#readers.set(path, reader);
      fresh.push(reader);
    }
    // Only now: an answer may change what is needed.
    for (const r of fresh) void r.read();
  }

  #visibility(): void {
    clearTimeout(this.#hide);
    if (document.hidden) this.#hide = window.setTimeout(() => this.#pause(), HIDDEN_MS);
    else if (this.#paused) this.#resume();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#abort.abort();
    this.#abortCharts.abort();
    this.#stream?.close();
    for (const r of this.#readers.values()) r.stop();
    this.#readers.clear();
    for (const t of [this.#retry, this.#watchdog, this.#chartsTimer, this.#eventsTimer]) clearTimeout(t);
    this.#window = undefined;
    this.#seen = undefined;
  }

  #resume(): void {
    this.#paused = false;
    this.#abort = new AbortController();
    this.#tries = 0;
    this.#open();
    this.#follow();
    this.#whoAmI().catch(() => undefined); // the stream tells what is wrong
  }

  // The stream of overviews.

  #open(): void {
    clearTimeout(this.#retry);
    this.#stream?.close();
    const stream = new EventSource("/v1/activity/stream");
    this.#stream = stream;
    this.#watch();
    stream.addEventListener("overview", (e: MessageEvent<string>) => {
      if (stream !== this.#stream) return;
      let overview: Overview;
      try {
        overview = JSON.parse(e.data) as Overview;
      } catch {
        this.#lost("the manager sent something that is not JSON");
        return;
      }
      this.#tries = 0;
      this.#watch();
      this.#store.takeOverview(overview, Date.now());
      this.#drawSeen();
    });
    stream.addEventListener("event", (e: MessageEvent<string>) => {
      try {
        this.#store.addEvents([JSON.parse(e.data) as Event]);
      } catch {
        // The next reading of the log brings it.
      }
    });
    // What happened while there was no stream stands in the log.
    stream.onopen = () => void this.#readEvents();
    stream.onerror = () => {
      if (stream === this.#stream) this.#lost("the manager cannot be reached");
    };
  }

  async #whoAmI(): Promise<void> {
    const { me, clock } = await whoAmI(this.#abort.signal);
    this.#store.takeVisitor(me, clock, Date.now());
  }

  #watch(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = window.setTimeout(() => this.#lost("the manager is silent"), SILENCE_MS);
  }

  /** Closes the stream, learns why it ended, and opens another one after a while. */
  #lost(problem: string): void {
    this.#stream?.close();
    this.#stream = undefined;
    clearTimeout(this.#watchdog);
    this.#store.lose(problem, Date.now());
    this.#retry = window.setTimeout(() => this.#open(), retryDelay(this.#tries++, Math.random()));
    // An EventSource does not tell a status: a plain call does.
    this.#whoAmI().catch((err: unknown) => {
      if (!(err instanceof CallError)) return;
      if (err.status === 401) toLogin();
      else if (this.#store.state.link.state === "lost") this.#store.lose(err.message, Date.now());
    });
  }

  // The charts' history.

  async #readCharts(another: boolean): Promise<void> {
    const w = this.#window;
    this.#abortCharts.abort();
    clearTimeout(this.#chartsTimer);
    const scope = this.#scope;
    if (w === undefined || scope === undefined) return;
    const abort = new AbortController();
    this.#abortCharts = abort;
    const { charts, recent } = this.#store.state;
    if (another) this.#store.set({ charts: { ...charts, state: "loading" } });
    const now = managerNow(this.#store.state, Date.now()) / 1000;
    const r = rangeOf(w, now);
    const q = queries(r.step, scope);
    try {
      const [rates, quantiles] = await Promise.all([queryRange(q.rates, r, abort.signal), queryRange(q.quantiles, r, abort.signal)]);
      this.#store.set({ charts: { state: "ready", data: chartData(rates, quantiles, r, w, now), problem: "", exemplars: this.#store.state.charts.exemplars } });
    } catch (err) {
      if (abort.signal.aborted) return;
      if (err instanceof CallError && err.status === 401) toLogin();
      const problem = err instanceof Error ? err.message : String(err);
      // While the manager is away the last charts stay, and the whole page says
      // so; while only its history is, what the stream brought is drawn.
      const away = err instanceof CallError && err.status === 0;
      const data = away && charts.data ? charts.data : w.kind === "live" && scope.live ? chartFromRecent(recent, w.seconds, now) : undefined;
      this.#store.set({ charts: { state: "failed", data, problem: away && data ? "" : problem, exemplars: [] } });
    }
    this.#chartsTimer = window.setTimeout(() => void this.#readCharts(false), refreshEvery(w));
  }

  /** Reads exemplars now and then, those of a fixed window once. A chart without them is whole. */
  async #readExemplars(): Promise<void> {
    const { route, me, overview, charts: { data, state } } = this.#store.state;
    const w = this.#window;
    // While another window is loading the data there are those of the last one.
    if (!data || state !== "ready" || !overview || w === undefined || !may(me, "operator", "traces:read")) return;
    const query = exemplarQuery(route, overview.nodes ?? []);
    const read = this.#exemplarsAt > 0 && (w.kind === "fixed" || Date.now() - this.#exemplarsAt < EXEMPLARS_MS);
    if (query === undefined || read) return;
    this.#exemplarsAt = Date.now();
    const scope = this.#scope;
    const { from, to } = data;
    try {
      for (const [start, end] of spansToRead(from, to, this.#exemplarsTo)) {
        const answer = await queryExemplars(query, start, end, this.#abort.signal);
        if (scope !== this.#scope || !sameWindow(w, this.#window ?? w)) return;
        const { charts } = this.#store.state;
        this.#store.set({ charts: { ...charts, exemplars: pickExemplars(answer, from, to, charts.exemplars) } });
      }
      this.#exemplarsTo = to;
    } catch {
      // The next reading brings them.
    }
  }

  /** Draws what the stream brings while the history cannot be read. */
  #drawSeen(): void {
    const { charts, recent } = this.#store.state;
    const w = this.#window;
    if (charts.state !== "failed" || charts.problem === "" || w?.kind !== "live" || !this.#scope?.live) return;
    const now = managerNow(this.#store.state, Date.now()) / 1000;
    this.#store.set({ charts: { ...charts, data: chartFromRecent(recent, w.seconds, now) } });
  }

  // The event log.

  async #readEvents(): Promise<void> {
    clearTimeout(this.#eventsTimer);
    const { signal } = this.#abort;
    const newest = this.#store.state.events[0]?.id ?? 0;
    try {
      this.#store.addEvents(await listEvents(newest, FIRST_EVENTS, signal));
      if (!this.#store.state.eventsRead) this.#store.set({ eventsRead: true });
    } catch (err) {
      if (signal.aborted) return;
      this.#store.set({ eventsProblem: err instanceof Error ? err.message : String(err) });
    }
    if (!signal.aborted) this.#eventsTimer = window.setTimeout(() => void this.#readEvents(), EVENTS_MS);
  }
}

/** Keeps one address read. */
class Reader {
  readonly #store: Store;
  readonly #need: Need;
  #abort = new AbortController();
  #timer: number | undefined;

  constructor(store: Store, need: Need) {
    this.#store = store;
    this.#need = need;
  }

  /** Reads now, and then at its interval. A reading under way is given up. */
  async read(): Promise<void> {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    const { path, every, text } = this.#need;
    const have = this.#store.state.data.get(path) ?? LOADING;
    try {
      const body = await send<unknown>({ method: "GET", path, ...(text ? { text } : {}) }, abort.signal);
      if (abort.signal.aborted) return;
      this.#store.takeData(path, { state: "ready", body, problem: "", status: 200 });
    } catch (err) {
      if (abort.signal.aborted) return;
      const status = err instanceof CallError ? err.status : 0;
      if (status === 401) toLogin();
      this.#store.takeData(path, { state: "failed", body: have.body, problem: err instanceof Error ? err.message : String(err), status });
    }
    if (every > 0 && !abort.signal.aborted) this.#timer = window.setTimeout(() => void this.read(), every);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }
}

/** Goes to the login page, which leads back here. */
function toLogin(): void {
  location.assign(`/login?error=ended&next=${encodeURIComponent(location.pathname + location.search)}`);
}
