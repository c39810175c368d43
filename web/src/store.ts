// The one store of the page. live.ts writes into it what the event stream and
// the queries bring; components read it by useStore and never fetch.

import { useEffect, useReducer, useRef } from "preact/hooks";
import type { Event, Fault, Me, Overview } from "./api";
import type { Exemplar } from "./exemplars";
import { parseTime } from "./format";
import { attention, type Item, trackSince } from "./health";
import { NONE_UNDATED, type Undated, undatedOf } from "./since";
import { type Loaded, loaded, type Path, SPARK } from "./resources";
import { parseRoute, type Route } from "./routes";
import type { ChartData, RecentPoint } from "./series";

/** How the event stream stands. */
export interface Link {
  state: "connecting" | "live" | "lost";
  /** Since when, by this machine's clock. */
  since: number;
  /** What went wrong, in words, while lost. */
  problem: string;
}

export interface Charts {
  state: "loading" | "ready" | "failed";
  /** Kept while newer data are loading or cannot be had. */
  data: ChartData | undefined;
  /** Why the history could not be read. */
  problem: string;
  /** Single slow requests with traces, for those who may read traces. */
  exemplars: readonly Exemplar[];
}

export const NO_CHARTS: Charts = { state: "loading", data: undefined, problem: "", exemplars: [] };

/** How an action goes, or went. */
export interface Doing {
  state: "running" | "done" | "failed";
  /** When it began, by this machine's clock. */
  at: number;
  body: unknown;
  problem: string;
  faults: readonly Fault[];
}

export interface State {
  me: Me | undefined;
  overview: Overview | undefined;
  /** When it came, by this machine's clock. */
  received: number;
  /** The manager's clock less this machine's, in milliseconds. */
  skew: number;
  link: Link;
  charts: Charts;
  /** Newest first, at most KEEP_EVENTS. */
  events: Event[];
  /** The log was read once: no events are none. */
  eventsRead: boolean;
  eventsProblem: string;
  items: Item[];
  /** What of the items has no beginning, for a look into the store. */
  undated: Undated;
  seen: Map<string, number | undefined>;
  recent: RecentPoint[];
  route: Route;
  /** What views read beside the stream, by address. */
  data: ReadonlyMap<string, Loaded<unknown>>;
  /** Rises when the view's data should be read again at once. */
  turn: number;
  /** How actions go, by their key. */
  doing: ReadonlyMap<string, Doing>;
  /** Requests per second of each node, one point for each SPARK.step seconds, the newest last. */
  sparks: ReadonlyMap<string, readonly number[]>;
  /** The step (Unix seconds over SPARK.step) of the newest point; when the first came. */
  sparkStep: number;
  opened: number;
}

const KEEP_EVENTS = 1000;
/** Addresses whose answers are kept for the way back. */
const KEEP_DATA = 40;
/** Steps of the stream kept for charts without history: an hour of 2 s. */
const KEEP_RECENT = 1800;
/** Clocks closer than this are taken as equal: an answer is as old as that, and tells whole seconds. */
const SKEW_TOLERANCE_MS = 2000;
/** After so long without data, what fails now may have begun at any time. */
const BREAK_MS = 10_000;

export class Store {
  #state: State;
  #listeners = new Set<() => void>();

  constructor(path: string, now: number) {
    this.#state = {
      me: undefined,
      overview: undefined,
      received: 0,
      skew: 0,
      link: { state: "connecting", since: now, problem: "" },
      charts: NO_CHARTS,
      events: [],
      eventsRead: false,
      eventsProblem: "",
      items: [],
      undated: NONE_UNDATED,
      seen: new Map(),
      recent: [],
      route: parseRoute(path),
      data: new Map(),
      turn: 0,
      doing: new Map(),
      sparks: new Map(),
      sparkStep: 0,
      opened: now / 1000,
    };
  }

  get state(): State {
    return this.#state;
  }

  /** Calls f after each change, until the returned function is called. */
  subscribe(f: () => void): () => void {
    this.#listeners.add(f);
    return () => this.#listeners.delete(f);
  }

  set(patch: Partial<State>): void {
    this.#state = { ...this.#state, ...patch };
    for (const f of [...this.#listeners]) f();
  }

  /** Takes one event of the stream. */
  takeOverview(o: Overview, now: number): void {
    const s = this.#state;
    const fresh = s.overview === undefined || now - s.received > BREAK_MS;
    const { items, seen } = trackSince(s.seen, attention(o, now + s.skew), now + s.skew, fresh);
    const time = (parseTime(o.time) ?? now + s.skew) / 1000;
    const newer = o.recent !== null && time > (s.recent.at(-1)?.time ?? 0);
    const recent = newer && o.recent ? [...s.recent.slice(1 - KEEP_RECENT), { time, activity: o.recent }] : s.recent;
    const step = Math.floor((now + s.skew) / 1000 / SPARK.step);
    if (step !== s.sparkStep) {
      // Nodes that are gone take their sparklines with them.
      const sparks = new Map((o.nodes ?? []).map((n) => [n.id, [...(s.sparks.get(n.id) ?? []).slice(1 - SPARK.points), n.activity?.requests_per_second ?? 0]]));
      this.#state = { ...this.#state, sparks, sparkStep: step };
    }
    const undated = undatedOf(items, s.undated, now + s.skew);
    this.set({ overview: o, received: now, items, undated, seen, recent, link: s.link.state === "live" ? s.link : { state: "live", since: now, problem: "" } });
  }

  /** Takes who is looking, and the manager's clock as it was about now. */
  takeVisitor(me: Me, clock: number | undefined, now: number): void {
    const off = clock === undefined ? 0 : clock - now;
    this.set({ me, skew: Math.abs(off) > SKEW_TOLERANCE_MS ? off : 0 });
  }

  /** Takes an answer, or the news that there is none. */
  takeData(path: string, entry: Loaded<unknown>): void {
    const data = new Map(this.#state.data);
    data.delete(path); // so that the newest stands last
    data.set(path, entry);
    for (const old of data.keys()) {
      if (data.size <= KEEP_DATA) break;
      data.delete(old);
    }
    this.set({ data });
  }

  /** Says how an action goes. */
  progress(key: string, d: Doing | undefined): void {
    const doing = new Map(this.#state.doing);
    if (d) doing.set(key, d);
    else doing.delete(key);
    this.set({ doing });
  }

  /** Has the view's data read again. */
  readAgain(): void {
    this.set({ turn: this.#state.turn + 1 });
  }

  /** Says that the stream is gone; the last data stay. */
  lose(problem: string, now: number): void {
    const { link } = this.#state;
    const since = link.state === "lost" ? link.since : now;
    if (link.state !== "lost" || link.problem !== problem) this.set({ link: { state: "lost", since, problem } });
  }

  /** Adds events in any order; an id that is known already is not added again. */
  addEvents(more: readonly Event[]): void {
    const known = new Set(this.#state.events.map((e) => e.id));
    const added = more.filter((e) => !known.has(e.id));
    if (added.length === 0 && this.#state.eventsProblem === "") return;
    const events = [...this.#state.events, ...added].sort((a, b) => b.id - a.id).slice(0, KEEP_EVENTS);
    this.set({ events, eventsProblem: "" });
  }
}

/** The manager's time now, as far as it is known. */
export function managerNow(s: State, now: number): number {
  return now + s.skew;
}

/** Data older than this are shown greyed with their age: three missed steps of the stream. */
export const STALE_MS = 7000;

/** How old the data are, in milliseconds; 0 while they are fresh. */
export function staleFor(s: State, now: number): number {
  if (s.overview === undefined) return 0;
  const age = now - s.received;
  return age > STALE_MS || (s.link.state === "lost" && age > STALE_MS / 2) ? age : 0;
}

/** Reads a part of the store and renders again when that part is another one (by Object.is). */
export function useStore<T>(store: Store, select: (s: State) => T): T {
  const [, render] = useReducer((n: number) => n + 1, 0);
  const value = select(store.state);
  const last = useRef({ select, value });
  last.current = { select, value };
  useEffect(() => {
    const check = (): void => {
      if (!Object.is(last.current.select(store.state), last.current.value)) render(undefined);
    };
    check(); // what changed between render and subscription
    return store.subscribe(check);
  }, [store]);
  return value;
}

/** Reads what is known of an address. A path of undefined is still loading. */
export function useData<T>(store: Store, path: Path<T> | undefined): Loaded<T> {
  return useStore(store, (s) => loaded(s.data, path));
}

/** The time now, by this machine's clock; renders again each second. */
export function useNow(): number {
  const [, render] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => render(undefined), 1000);
    return () => clearInterval(timer);
  }, []);
  return Date.now();
}
