// Is the fleet well? The sentence, the three charts, what needs attention, the
// tables; and, before the first node, how to join one.

import { useMemo } from "preact/hooks";
import type { Overview } from "../api";
import { Charts } from "../components/charts";
import { BackendsTable, NodesTable } from "../components/fleet";
import { Shape, toneWord } from "../components/marks";
import { useMedia, WALL } from "../components/media";
import { exact, hoverTime, plural, rate, ratio, seconds, windowName } from "../format";
import { type Item, sentence, sinceWords } from "../health";
import { loaded, sincePaths } from "../resources";
import { began, dateItems } from "../since";
import { managerNow, type Store, useNow, useStore } from "../store";
import { Empty } from "./empty";
import { EventList } from "./events";

export function OverviewPage({ store }: { store: Store }) {
  const overview = useStore(store, (s) => s.overview);
  const items = useItems(store);
  if (!overview) return <Frame store={store} />;
  if ((overview.nodes ?? []).length === 0) return <Empty overview={overview} />;
  return (
    <>
      <Headline store={store} overview={overview} items={items} />
      <div class="upper">
        <Charts store={store} />
        <div class="side">
          <Attention store={store} items={items} />
          <Latest store={store} />
        </div>
      </div>
      <div class="pairs wall">
      <section aria-labelledby="nodes-title">
        <header class="bar">
          <h2 id="nodes-title"><a href="/nodes">Nodes</a></h2>
          <span class="aside">{overview.cluster.activity ? windowName(overview.cluster.activity.window) : ""}</span>
        </header>
        <NodesTable store={store} whole={false} />
      </section>
      <section aria-labelledby="backends-title">
        <header class="bar">
          <h2 id="backends-title"><a href="/backends">Backends</a></h2>
          <span class="aside">{overview.cluster.activity ? windowName(overview.cluster.activity.window) : ""}</span>
        </header>
        <BackendsTable store={store} whole={false} />
      </section>
      </div>
    </>
  );
}

/** The page before the first data: the frame at once, words after a second (by the style sheet). */
function Frame({ store }: { store: Store }) {
  const link = useStore(store, (s) => s.link);
  const now = useNow();
  const waits = now - link.since > 1000;
  return (
    <section class="headline">
      <p class="sentence" data-testid="sentence">
        {link.state === "lost" ? `No data: ${link.problem}. This page goes on trying.` : waits ? "Waiting for the manager's first answer…" : "\u00a0"}
      </p>
    </section>
  );
}

/** What needs attention, with what the store knows of its beginnings. */
function useItems(store: Store): readonly Item[] {
  const items = useStore(store, (s) => s.items);
  const undated = useStore(store, (s) => s.undated);
  const data = useStore(store, (s) => s.data);
  const begun = useMemo(() => began(undated, sincePaths(undated).map((p) => loaded(data, p).body?.data?.result)), [undated, data]);
  return useMemo(() => dateItems(items, begun), [items, begun]);
}

function Headline({ store, overview, items }: { store: Store; overview: Overview; items: readonly Item[] }) {
  const now = managerNow(store.state, Date.now());
  const { cluster } = overview;
  const a = cluster.activity;
  const count = items.filter((i) => i.tone !== "info").length;
  const parts = sentence(overview, items, now);
  return (
    <section class="headline" aria-label="Summary">
      <h1 class="sr">Overview</h1>
      <p class="sentence" data-testid="sentence">
        {parts.map((p, i) =>
          p.href ? (
            <a key={i} href={p.href} class={p.tone ? `tone-${p.tone}` : undefined}>{p.text}</a>
          ) : (
            <span key={i} class={p.tone ? `tone-${p.tone}` : undefined}>{p.text}</span>
          ),
        )}
      </p>
      <p class="sr" role="status">{count === 0 ? "Nothing needs attention" : `${plural(count, "thing needs", "things need")} attention`}</p>
      <dl class="facts">
        <Fact name={a ? `Requests, ${windowName(a.window)}` : "Requests"} value={rate(a?.requests_per_second)} raw={a?.requests_per_second} testid="cluster-requests-per-second" />
        <Fact name="Error ratio" value={ratio(a?.error_ratio)} raw={a?.error_ratio} testid="cluster-error-ratio" />
        <Fact name="Median" value={seconds(a?.latency?.p50)} raw={a?.latency?.p50} testid="cluster-p50" />
        <Fact name="p99" value={seconds(a?.latency?.p99)} raw={a?.latency?.p99} testid="cluster-p99" />
        <Fact name="Since enrollment" value={a ? exact(a.requests_total) : "no data yet"} raw={a?.requests_total} testid="cluster-requests-total" />
        <Fact name="License" value={license(overview)} raw={undefined} testid="cluster-license" />
      </dl>
    </section>
  );
}

function license({ cluster: { license: l } }: Overview): string {
  const seats = l.seats === 0 ? plural(l.seats_used, "seat used", "seats used") : `${exact(l.seats_used)} of ${plural(l.seats, "seat")}`;
  return l.plan === "" ? l.state : `${l.plan}, ${seats}`;
}

function Fact({ name, value, raw, testid }: { name: string; value: string; raw: number | null | undefined; testid: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd data-testid={testid} data-value={raw ?? undefined}>{value}</dd>
    </div>
  );
}

/** More lines than this are folded. */
const MOST_ITEMS = 12;

function Attention({ store, items }: { store: Store; items: readonly Item[] }) {
  const now = managerNow(store.state, Date.now());
  return (
    <section class="attention" aria-labelledby="attention-title" data-testid="attention">
      <header class="bar">
        <h2 id="attention-title">Needs attention</h2>
      </header>
      {items.length === 0 ? (
        <p class="calm">Nothing. All is as it should be.</p>
      ) : (
        <ul>
          {items.slice(0, MOST_ITEMS).map((i) => <Line key={i.key} item={i} now={now} />)}
        </ul>
      )}
      {items.length > MOST_ITEMS && (
        <details>
          <summary>{exact(items.length - MOST_ITEMS)} more</summary>
          <ul>{items.slice(MOST_ITEMS).map((i) => <Line key={i.key} item={i} now={now} />)}</ul>
        </details>
      )}
    </section>
  );
}

/** The newest events: what is going on now. A wall has room for more. */
const LATEST = { usual: 5, wall: 11 };

function Latest({ store }: { store: Store }) {
  const most = useMedia(WALL) ? LATEST.wall : LATEST.usual;
  return (
    <section class="latest" aria-labelledby="latest-title">
      <header class="bar">
        <h2 id="latest-title"><a href="/events">Latest events</a></h2>
      </header>
      <EventList store={store} keep={everything} most={most} />
    </section>
  );
}

const everything = (): boolean => true;

function Line({ item, now }: { item: Item; now: number }) {
  return (
    <li class={`item item-${item.tone}`}>
      <a href={item.href}>
        <Shape tone={item.tone} />
        <span>
          <span class="sr">{toneWord(item.tone)}: </span>
          <strong>{item.subject}</strong> {item.text}
        </span>
        {item.since !== undefined && <span class="since"><time dateTime={new Date(item.since).toISOString()} title={hoverTime(item.since, now)}>{sinceWords(item, item.since, now)}</time></span>}
      </a>
    </li>
  );
}
