// The page of a cluster without nodes: the exact block to paste, and a sign
// that the page is watching.

import { useState } from "preact/hooks";
import type { Manager, Overview } from "../api";
import { span } from "../format";
import { useNow } from "../store";

/** The port of the node API where the manager does not say another. */
const NODE_PORT = 9899;

/**
 * The address that a node's file should name. The host of a manager that
 * listens everywhere is not known to it: what the browser reached is better.
 */
export function managerAddress(managers: readonly Manager[], reachedHost: string): string {
  const m = managers.find((x) => x.leader) ?? managers[0];
  const at = m?.node_address ?? "";
  const colon = at.lastIndexOf(":");
  const host = colon < 0 ? "" : at.slice(0, colon);
  const port = colon < 0 ? String(NODE_PORT) : at.slice(colon + 1);
  const everywhere = host === "" || host === "0.0.0.0" || host === "[::]";
  return `${everywhere ? reachedHost : host}:${port}`;
}

/** The block of a gateway's krakend.json that makes it a node. */
export function joinBlock(address: string): string {
  return `"extra_config": {
  "@cluster": {
    "manager": ${JSON.stringify(address)},
    "token_file": "/etc/binnacle/join.token"
  }
}`;
}

export function Empty({ overview }: { overview: Overview }) {
  const now = useNow();
  const [opened] = useState(now);
  const block = joinBlock(managerAddress(overview.cluster.managers ?? [], location.hostname));
  return (
    <section class="empty" data-testid="empty">
      <h1 data-testid="sentence">No node has joined yet.</h1>
      <ol>
        <li>
          <p>Add this block to the gateway's <code>krakend.json</code>:</p>
          <CopyBlock text={block} />
        </li>
        <li>
          <p>Copy <code>join.token</code> from the manager's tokens directory, which it printed at its start, to <code>/etc/binnacle/join.token</code> on the gateway.</p>
        </li>
        <li>
          <p>Start it with <code>binnacle-gateway run -c krakend.json</code>. It keeps serving as before.</p>
        </li>
      </ol>
      <p class="watching" role="status">
        <span class="pulse" aria-hidden="true" />
        waiting for the first node… <span class="aside">{span(now - opened)}</span>
      </p>
      <p class="aside">A stock gateway shows up too, as unmanaged, once it sends OTLP to this manager on port 4317 (gRPC) or 4318 (HTTP).</p>
    </section>
  );
}

export function CopyBlock({ text }: { text: string }) {
  const [done, setDone] = useState<"" | "copied" | "press Ctrl-C">("");
  const copy = (e: MouseEvent): void => {
    const block = (e.currentTarget as Element).parentElement?.querySelector("pre");
    // The clipboard is there only over HTTPS and on localhost; elsewhere the
    // text is selected and the reader copies.
    const select = (): void => {
      if (block) getSelection()?.selectAllChildren(block);
      setDone("press Ctrl-C");
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => setDone("copied"), select);
    else select();
  };
  return (
    <div class="copyblock">
      <pre tabIndex={0} data-testid="join-block">{text}</pre>
      <button type="button" onClick={copy}>{done === "" ? "Copy" : done}</button>
    </div>
  );
}
