// Entry: one store, one connection, one tree.

import { render } from "preact";
import { App } from "./app";
import { Live } from "./live";
import { followLinks } from "./navigate";
import { Store } from "./store";
import "./styles/tokens.css";
import "./styles/page.css";

const root = document.getElementById("app");
if (!root) throw new Error("index.html has no element #app");
const store = new Store(location.pathname + location.search, Date.now());
followLinks(store);
new Live(store).start();
render(<App store={store} />, root);
