// The frame around every view: name, navigation, how fresh the data are.

import type { ComponentChildren } from "preact";
import { span } from "./format";
import { BackendPage, NodePage } from "./pages/details";
import { EventsPage } from "./pages/events";
import { BackendsPage, NodesPage } from "./pages/lists";
import { OverviewPage } from "./pages/overview";
import type { Page, Route } from "./routes";
import { staleFor, type Store, useNow, useStore } from "./store";

const NAV: readonly { href: string; label: string; pages: readonly Page[] }[] = [
  { href: "/", label: "Overview", pages: ["overview"] },
  { href: "/nodes", label: "Nodes", pages: ["nodes", "node"] },
  { href: "/backends", label: "Backends", pages: ["backends", "backend"] },
  { href: "/events", label: "Events", pages: ["events"] },
];

export function App({ store }: { store: Store }) {
  const route = useStore(store, (s) => s.route);
  return (
    <>
      <a class="skip" href="#main">Skip to content</a>
      <header class="top">
        <a class="brand" href="/"><img src="/favicon.svg" alt="" width="22" height="22" /> Binnacle</a>
        <nav aria-label="Views">
          {NAV.map((n) => (
            <a key={n.href} href={n.href} aria-current={route.page && n.pages.includes(route.page) ? "page" : undefined}>{n.label}</a>
          ))}
        </nav>
        <Status store={store} />
        <Visitor store={store} />
      </header>
      <Fresh store={store}>{view(store, route)}</Fresh>
    </>
  );
}

function view(store: Store, route: Route) {
  switch (route.page) {
    case "overview":
      return <OverviewPage store={store} />;
    case "nodes":
      return <NodesPage store={store} />;
    case "node":
      return <NodePage store={store} id={route.id} key={route.id} />;
    case "backends":
      return <BackendsPage store={store} />;
    case "backend":
      return <BackendPage store={store} id={route.id} key={route.id} />;
    case "events":
      return <EventsPage store={store} />;
    case undefined:
      return (
        <section class="gone">
          <h1>There is no such view</h1>
          <p><a href="/">To the overview</a></p>
        </section>
      );
  }
}

/** Whether the data are live, or how old they are. */
function Status({ store }: { store: Store }) {
  const link = useStore(store, (s) => s.link);
  const cluster = useStore(store, (s) => s.overview?.cluster);
  const now = useNow();
  const stale = staleFor(store.state, now);
  const words = stale > 0 ? `data are ${span(stale)} old` : link.state === "live" ? "live" : link.state === "lost" ? "not connected" : "connecting";
  return (
    <span class={`link link-${stale > 0 || link.state === "lost" ? "lost" : link.state}`} data-testid="link" title={cluster ? `cluster ${cluster.id}, manager ${cluster.version}` : undefined}>
      <span class="dot" aria-hidden="true" />
      {words}
    </span>
  );
}

/** Who is logged in, with the way out; nothing for anonymous visitors. */
function Visitor({ store }: { store: Store }) {
  const me = useStore(store, (s) => s.me);
  if (!me || me.name === "" || me.name === "anonymous") return null;
  return (
    <form class="visitor" method="post" action="/logout">
      <span title={`role ${me.role}`}>{me.name}</span>
      <button type="submit">Log out</button>
    </form>
  );
}

/** Greys what it holds once the data are stale, and says why. */
function Fresh({ store, children }: { store: Store; children: ComponentChildren }) {
  useStore(store, (s) => s.received);
  const link = useStore(store, (s) => s.link);
  const now = useNow();
  const stale = staleFor(store.state, now);
  return (
    <>
      {stale > 0 && (
        <p class="stale-note" role="alert" data-testid="stale">
          <strong>No longer live<span aria-hidden="true">: the data are {span(stale)} old</span>.</strong> {link.problem ? `${link.problem[0]?.toUpperCase()}${link.problem.slice(1)}` : "The manager is silent"}; the nodes go on serving without it. This page goes on trying.
        </p>
      )}
      <main id="main" tabIndex={-1} class={stale > 0 ? "stale" : undefined}>{children}</main>
    </>
  );
}
