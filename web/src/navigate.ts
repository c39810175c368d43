// Moves between views without loading the page again: links stay plain links,
// and one listener turns clicks on them into changes of the route.

import { parseRoute } from "./routes";
import type { Store } from "./store";

/** Goes to a path of the page; a mere query ("?w=1h", or "" for none) changes that of the current view. */
export function navigate(store: Store, to: string, replace = false): void {
  const path = to === "" || to.startsWith("?") ? location.pathname + to : to;
  const before = store.state.route.page;
  if (replace) history.replaceState(null, "", path);
  else history.pushState(null, "", path);
  store.set({ route: parseRoute(path) });
  if (store.state.route.page !== before) {
    scrollTo(0, 0);
    // A screen reader goes on with the new view.
    document.getElementById("main")?.focus({ preventScroll: true });
  }
}

/** Follows links, back and forward. Called once. */
export function followLinks(store: Store): void {
  addEventListener("popstate", () => store.set({ route: parseRoute(location.pathname + location.search) }));
  document.addEventListener("click", (e) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    const link = e.target instanceof Element ? e.target.closest("a") : null;
    if (!link || link.target !== "" || link.hasAttribute("download") || link.origin !== location.origin) return;
    const path = link.pathname + link.search;
    if (parseRoute(path).page === undefined || link.hash !== "") return;
    e.preventDefault();
    navigate(store, path);
  });
}
