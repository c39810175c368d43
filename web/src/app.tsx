// The frame around every view: name, navigation, how fresh the data are.

import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { anonymous, lacks } from "./access";
import { span } from "./format";
import { ConfigPage } from "./pages/config";
import { BackendPage, NodePage } from "./pages/details";
import { DiffPage } from "./pages/diff";
import { EventsPage } from "./pages/events";
import { GroupPage } from "./pages/group";
import { LicensePage } from "./pages/license";
import { BackendsPage, NodesPage } from "./pages/lists";
import { MatrixPage } from "./pages/matrix";
import { OverviewPage } from "./pages/overview";
import { RolloutPage } from "./pages/rollout";
import { TokensPage } from "./pages/tokens";
import { TracePage, TracesPage } from "./pages/traces";
import { UploadPage } from "./pages/upload";
import type { Page, Route } from "./routes";
import { staleFor, type Store, useNow, useStore } from "./store";

const NAV: readonly { href: string; label: string; pages: readonly [Page, ...Page[]] }[] = [
  { href: "/", label: "Overview", pages: ["overview"] },
  { href: "/nodes", label: "Nodes", pages: ["nodes", "node"] },
  { href: "/backends", label: "Backends", pages: ["backends", "backend", "matrix"] },
  { href: "/config", label: "Configuration", pages: ["config", "group", "upload", "diff", "rollout"] },
  { href: "/traces?service=binnacle-gateway", label: "Traces", pages: ["traces", "trace"] },
  { href: "/events", label: "Events", pages: ["events"] },
  { href: "/license", label: "License", pages: ["license"] },
  { href: "/tokens", label: "Tokens", pages: ["tokens"] },
];

/** What a tab, a bookmark and a screen reader call the view. */
function titleOf({ page, id }: Route): string {
  const name = NAV.find((n) => page && n.pages.includes(page))?.label;
  return page === "overview" || !name ? "Binnacle" : `${id ? `${id} · ` : ""}${name} · Binnacle`;
}

export function App({ store }: { store: Store }) {
  const route = useStore(store, (s) => s.route);
  const me = useStore(store, (s) => s.me);
  const { page } = route;
  useEffect(() => {
    document.title = titleOf(route);
    // On a phone the views are a strip: the current one should be seen.
    document.querySelector(".top nav a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
  }, [page, route.id]);
  return (
    <>
      <a class="skip" href="#main">Skip to content</a>
      <header class="top">
        <a class="brand" href="/"><img src="/favicon.svg" alt="" width="22" height="22" /> Binnacle</a>
        <nav aria-label="Views">
          {NAV.filter((n) => lacks(me, n.pages[0]) === undefined).map((n) => (
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
  const { me } = store.state;
  const need = route.page && lacks(me, route.page);
  if (need) {
    return (
      <section class="gone" data-testid="refused">
        <h1>{me ? `This view needs the role ${need}` : "One moment…"}</h1>
        {me && <p>{anonymous(me) ? "You are not logged in." : `${me.name} has the role ${me.role}.`} <a href={`/login?next=${encodeURIComponent(location.pathname + location.search)}`}>Log in</a> with a token that has it.</p>}
      </section>
    );
  }
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
    case "matrix":
      return <MatrixPage store={store} />;
    case "config":
      return <ConfigPage store={store} />;
    case "group":
      return <GroupPage store={store} id={route.id} key={route.id} />;
    case "upload":
      return <UploadPage store={store} id={route.id} key={route.id} />;
    case "diff":
      return <DiffPage store={store} id={route.id} />;
    case "rollout":
      return <RolloutPage store={store} id={route.id} key={route.id} />;
    case "traces":
      return <TracesPage store={store} />;
    case "trace":
      return <TracePage store={store} id={route.id} key={route.id} />;
    case "license":
      return <LicensePage store={store} />;
    case "tokens":
      return <TokensPage store={store} />;
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

/** Who is logged in, with the way out; for anonymous visitors the way in. */
function Visitor({ store }: { store: Store }) {
  const me = useStore(store, (s) => s.me);
  if (!me) return null;
  if (anonymous(me)) return <a class="visitor" href={`/login?next=${encodeURIComponent(location.pathname + location.search)}`} title={`role ${me.role}`} data-testid="log-in">Log in</a>;
  return (
    <form class="visitor" method="post" action="/logout">
      <span title={`role ${me.role}`}>{me.name}</span>
      <button type="submit" data-testid="log-out">Log out</button>
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
