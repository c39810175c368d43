// The views that are one table each.

import { BackendsTable, NodesTable } from "../components/fleet";
import { exact, plural, windowName } from "../format";
import { type Store, useStore } from "../store";
import { BackendTabs } from "./matrix";

export function NodesPage({ store }: { store: Store }) {
  const overview = useStore(store, (s) => s.overview);
  const counts = Object.entries(overview?.cluster.nodes ?? {}).filter(([, n]) => n > 0);
  const unmanaged = overview?.cluster.unmanaged ?? 0;
  return (
    <section aria-labelledby="title">
      <header class="bar">
        <h1 id="title">Nodes</h1>
        <span class="aside">
          {[
            [...counts.map(([state, n]) => `${exact(n)} ${state}`), ...(unmanaged > 0 ? [`${exact(unmanaged)} unmanaged`] : [])].join(", "),
            overview?.cluster.activity ? windowName(overview.cluster.activity.window) : "",
          ].filter(Boolean).join(" · ")}
        </span>
      </header>
      <NodesTable store={store} whole />
    </section>
  );
}

export function BackendsPage({ store }: { store: Store }) {
  const overview = useStore(store, (s) => s.overview);
  return (
    <section aria-labelledby="title">
      <header class="bar">
        <h1 id="title">Backends</h1>
        <BackendTabs here="table" />
        <span class="aside">
          {plural(overview?.backends?.length ?? 0, "backend")}
          {overview?.cluster.activity ? ` · ${windowName(overview.cluster.activity.window)}` : ""}
        </span>
      </header>
      <BackendsTable store={store} whole />
    </section>
  );
}
