// A button that changes something. It asks once, naming the effect in numbers,
// and shows how it goes where it was started.

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { may } from "../access";
import { type Action, perform } from "../actions";
import { clock } from "../format";
import { type Doing, type Store, useNow, useStore } from "../store";

export interface ActProps {
  store: Store;
  action: Action;
  /** What the button says: what it does, with numbers. */
  label: string;
  /** The question, in one line; the label where it is left out. */
  title?: string;
  /** The effect in numbers. Without it nothing is asked. */
  effect?: ComponentChildren;
  /** What cannot be undone, or takes traffic away. */
  danger?: boolean;
  primary?: boolean;
  disabled?: boolean;
  /** What to say when it is done; empty for nothing. */
  done?: (d: Doing) => ComponentChildren;
  after?: (d: Doing) => void;
  testid?: string;
}

export function Act(p: ActProps) {
  const me = useStore(p.store, (s) => s.me);
  const doing = useStore(p.store, (s) => s.doing.get(p.action.key));
  const dialog = useRef<HTMLDialogElement>(null);
  const [asking, setAsking] = useState(false);
  const opening = useRef(false); // drawn, and about to be shown
  if (!may(me, p.action.role)) return null;
  const go = async (): Promise<void> => {
    dialog.current?.close();
    const d = await perform(p.store, p.action);
    p.after?.(d);
  };
  const ask = (): void => {
    if (p.effect === undefined) {
      void go();
      return;
    }
    opening.current = true;
    setAsking(true);
    // Drawn first, then shown: what is hidden costs nothing.
    requestAnimationFrame(() => {
      opening.current = false;
      dialog.current?.showModal();
    });
  };
  const kind = p.danger ? "danger" : p.primary ? "primary" : "plain";
  return (
    <span class="act">
      <button type="button" class={`button button-${kind}`} onClick={ask} disabled={p.disabled || doing?.state === "running"} data-testid={p.testid}>
        {p.label}
      </button>
      {asking && (
        // A close is told late: by then it may have been asked for again.
        <dialog ref={dialog} class="ask" onClose={() => setAsking(opening.current || (dialog.current?.open ?? false))} aria-label={p.title ?? p.label} data-testid="ask">
          <h2>{p.title ?? `${p.label}?`}</h2>
          <div class="effect">{p.effect}</div>
          <div class="choices">
            <button type="button" class="button button-plain" onClick={() => dialog.current?.close()} data-testid="cancel">Cancel</button>
            <button type="button" class={`button button-${p.danger ? "danger" : "primary"}`} onClick={() => void go()} data-testid="confirm">{p.label}</button>
          </div>
        </dialog>
      )}
    </span>
  );
}

/** How an action goes; nothing when it was not started, or long ago. */
export function Progress({ store, of, done }: { store: Store; of: string; done?: ((d: Doing) => ComponentChildren) | undefined }) {
  const d = useStore(store, (s) => s.doing.get(of));
  const now = useNow();
  if (!d || (d.state === "done" && now - d.at > SHOWN_MS)) return null;
  if (d.state === "failed") return <p class="problem" role="alert" data-testid={`progress-${of}`}>Not done: {d.problem}</p>;
  const words = d.state === "running" ? `asking the manager… ${now - d.at > 2000 ? `${Math.floor((now - d.at) / 1000)} s` : ""}` : (done?.(d) ?? `done at ${clock(d.at, true)}`);
  return <p class="going" role="status" data-testid={`progress-${of}`}>{words}</p>;
}

const SHOWN_MS = 120_000;

/** Where a view's data are loading, failed or old, says so; else draws them. */
export function Pending({ what, state, problem, has, children }: { what: string; state: "loading" | "ready" | "failed"; problem: string; has: boolean; children: ComponentChildren }) {
  return (
    <>
      {state === "failed" && <p class="problem" role="status">{what} cannot be read: {problem}.{has ? " What was read before is still shown." : ""}</p>}
      {has ? children : state === "loading" ? <p class="waiting">Reading {what.toLowerCase()}…</p> : null}
    </>
  );
}
