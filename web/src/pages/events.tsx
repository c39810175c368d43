// What happened: the event log, newest first, live.

import { useEffect } from "preact/hooks";
import type { Event } from "../api";
import { Time } from "../components/marks";
import { type Fields, matches, parseFilter } from "../filter";
import { exact, parseTime } from "../format";
import { navigate } from "../navigate";
import { nodeHref, withKey } from "../routes";
import { managerNow, type Store, useStore } from "../store";
import { pieces } from "../words";

const FIELDS = ["kind", "group", "node", "actor"] as const;

function fields(e: Event): Fields {
  return { kind: e.kind, group: e.group ?? "", node: e.node ?? "", actor: e.actor, message: e.message };
}

export function EventsPage({ store }: { store: Store }) {
  const query = useStore(store, (s) => s.route.query);
  const problem = useStore(store, (s) => s.eventsProblem);
  const text = query.get("q") ?? "";
  const terms = parseFilter(text, FIELDS);
  return (
    <section aria-labelledby="title">
      <header class="bar"><h1 id="title">Events</h1></header>
      <div class="filter">
        <input type="search" aria-label="Filter events" placeholder="Filter, e.g. kind:node group:eu" value={text} onInput={(e) => navigate(store, withKey(query, "q", e.currentTarget.value), true)} />
      </div>
      {problem && <p class="problem" role="status">The event log cannot be read: {problem}.</p>}
      <EventList store={store} keep={(e) => matches(terms, fields(e))} marked={Number(query.get("id"))} />
    </section>
  );
}

/** At most this many lines are drawn; a filter finds the others. */
const MOST = 300;

export function EventList({ store, keep, list, marked = 0, most = MOST }: { store: Store; keep: (e: Event) => boolean; list?: readonly Event[]; marked?: number; most?: number }) {
  const live = useStore(store, (s) => s.events);
  const read = useStore(store, (s) => s.eventsRead);
  const events = list ?? live;
  const nodes = useStore(store, (s) => s.overview?.nodes);
  const now = managerNow(store.state, Date.now());
  const names = new Map((nodes ?? []).map((n) => [n.id, n.name || n.id]));
  const kept = events.filter(keep);
  const there = kept.some((e) => e.id === marked);
  useEffect(() => {
    if (there) document.getElementById(`event-${marked}`)?.scrollIntoView({ block: "center" });
  }, [marked, there]);
  if (kept.length === 0) return <p class="none">{list || read ? "No events." : "Reading the events…"}</p>;
  return (
    <>
      <ol class="events">
        {kept.slice(0, most).map((e) => (
          <li key={e.id} id={`event-${e.id}`} class={e.id === marked ? "marked" : undefined} data-testid={`event-${e.id}`}>
            <Time at={parseTime(e.time)} now={now} exact />
            <code>{e.kind}</code>
            <span class="message">{pieces(e.message, names).map((p, i) => (p.href ? <a key={i} href={p.href}>{p.text}</a> : <span key={i}>{p.text}</span>))}</span>
            <span class="aside">
              {e.group}
              {e.node && <> <a href={nodeHref(e.node)}>{names.get(e.node) ?? e.node}</a></>} by {names.get(e.actor) ?? e.actor}
            </span>
          </li>
        ))}
      </ol>
      {most === MOST && kept.length > MOST && <p class="aside">{exact(kept.length - MOST)} older ones are left out: narrow the filter.</p>}
    </>
  );
}
