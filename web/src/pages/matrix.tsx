// The node x backend matrix. A full column reads "this backend is failing", a
// full row "this node is cut off".

import { useMemo, useState } from "preact/hooks";
import type { Activity, ActivityRow } from "../api";
import { Pending } from "../components/act";
import { exact, plural, rate, ratio, seconds, windowName } from "../format";
import { cellKey, matrixView, shade } from "../matrix";
import { cellsPath, MOST_CELLS } from "../resources";
import { backendHref, nodeHref } from "../routes";
import { type Store, useData, useStore } from "../store";

/** More rows and columns than this are left out, the best ones. */
const MOST = { rows: 100, columns: 40 };

/** So many columns have room for names that lie. */
const FEW = 8;

export function BackendTabs({ here }: { here: "table" | "matrix" }) {
  return (
    <nav class="windows" aria-label="Forms of this view">
      <a href="/backends" aria-current={here === "table" ? "page" : undefined}>Table</a>
      <a href="/matrix" aria-current={here === "matrix" ? "page" : undefined}>Matrix</a>
    </nav>
  );
}

const SHADES = ["no errors", "under 1 %", "1 to 10 %", "10 to 50 %", "over 50 %"] as const;

export function MatrixPage({ store }: { store: Store }) {
  const overview = useStore(store, (s) => s.overview);
  const whole = useData(store, cellsPath);
  const [at, setAt] = useState<{ node: string; backend: string }>();
  const nodes = overview?.nodes ?? [];
  const backends = overview?.backends ?? [];
  const all = backends.reduce((n, b) => n + b.callers, 0);
  const full = all <= MOST_CELLS;
  const view = useMemo(() => {
    // The stream's failing cells are newer than the whole matrix.
    const cells = new Map((full ? (whole.body?.rows ?? []) : []).map((r): [string, ActivityRow] => [cellKey(r.node ?? "", r.backend ?? ""), r]));
    for (const b of backends) for (const r of b.nodes ?? []) cells.set(cellKey(r.node ?? "", b.id), { ...r, backend: b.id });
    return matrixView(nodes.filter((n) => n.activity !== null), backends, [...cells.values()]);
  }, [overview, whole.body, full]);
  const rows = view.rows.slice(0, MOST.rows);
  const columns = view.columns.slice(0, MOST.columns);
  const names = new Map(view.rows.map((r) => [r.id, r.name]));
  const cell = at ? view.cells.get(cellKey(at.node, at.backend)) : undefined;
  const window = overview?.cluster.activity?.window;

  return (
    <section aria-labelledby="title">
      <header class="bar">
        <h1 id="title">Backends</h1>
        <BackendTabs here="matrix" />
        <span class="aside">{plural(view.rows.length, "node")} × {plural(view.columns.length, "backend")}{window ? ` · ${windowName(window)}` : ""}</span>
      </header>
      {!overview ? (
        <p class="waiting">Waiting for the manager's first answer…</p>
      ) : columns.length === 0 || rows.length === 0 ? (
        <p class="none">No node has called a backend in this window.</p>
      ) : (
        <>
          <div class="findings" data-testid="findings">
            {view.findings.length === 0 ? (
              <p class="sentence">{view.columns.some((c) => c.failing > 0) ? "Single calls fail; no backend fails from everywhere and no node is cut off." : "Every node reaches every backend it calls."}</p>
            ) : (
              view.findings.map((f) => (
                <p class="sentence" key={f.text + (f.node ?? f.backend)}>
                  {f.backend !== undefined ? <>Backend <a class={f.bad ? "tone-bad" : "tone-warn"} href={backendHref(f.backend)}>{f.backend}</a></> : <>Node <a class="tone-bad" href={nodeHref(f.node ?? "")}>{names.get(f.node ?? "")}</a></>} {f.text}
                </p>
              ))
            )}
          </div>
          {full && <Pending what="The matrix" state={whole.state} problem={whole.problem} has>{null}</Pending>}
          <p class="reading" role="status" aria-live="off">
            {at ? <><strong>{names.get(at.node)}</strong> → <strong>{at.backend}</strong>: {describe(cell, full)}</> : <Legend full={full} />}
          </p>
          <div class="matrixbox" tabIndex={0} role="region" aria-label="Matrix, scrolling" onMouseLeave={() => setAt(undefined)}>
            <table class={columns.length <= FEW ? "matrix few" : "matrix"} data-testid="matrix">
              <caption class="sr">Error ratio of calls, nodes down, backends across, worst first</caption>
              <thead>
                <tr>
                  <td />
                  {columns.map((c) => (
                    <th key={c.id} scope="col" class={c.failing > 0 && c.failing >= 0.8 * c.callers ? "hot" : undefined}>
                      <a href={backendHref(c.id)} title={c.id}><span>{c.id}</span></a>
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {rows.map((r) => (
                  <tr key={r.id}>
                    <th scope="row" class={r.calls > 1 && r.failing === r.calls ? "hot" : undefined}><a href={nodeHref(r.id)} title={r.id}>{r.name}</a></th>
                    {columns.map((c) => {
                      const a = view.cells.get(cellKey(r.id, c.id));
                      return (
                        <td key={c.id} class={a ? `shade-${shade(a)}` : full ? "shade-none" : "shade-0"} onMouseEnter={() => setAt({ node: r.id, backend: c.id })} data-testid={a && a.errors > 0 ? `cell-${r.id}-${c.id}` : undefined}>
                          {a && a.errors > 0 ? (
                            <a href={`${backendHref(c.id)}?node=${encodeURIComponent(r.id)}`} onFocus={() => setAt({ node: r.id, backend: c.id })}><span class="sr">{r.name} to {c.id}: </span>{short(a)}<span class="sr"> percent fail</span></a>
                          ) : (
                            <span class="sr">{a || !full ? "0" : "not called"}</span>
                          )}
                        </td>
                      );
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {(view.rows.length > rows.length || view.columns.length > columns.length) && (
            <p class="aside">The worst {plural(rows.length, "node")} and {plural(columns.length, "backend")} are shown, of {exact(view.rows.length)} and {exact(view.columns.length)}.</p>
          )}
        </>
      )}
    </section>
  );
}

/** Percent as short as a cell. */
const short = (a: Activity): string => {
  const p = (100 * a.errors) / Math.max(1, a.requests);
  return p >= 1 ? String(Math.round(p)) : "<1";
};

function describe(a: Activity | undefined, full: boolean): string {
  if (!a) return full ? "not called in this window." : "no errors in this window.";
  return `${rate(a.requests_per_second)}, ${ratio(a.error_ratio)} errors (${exact(a.errors)} of ${exact(a.requests)}), p99 ${seconds(a.latency?.p99)}.`;
}

function Legend({ full }: { full: boolean }) {
  return (
    <span class="legend">
      <span>Percent of calls that fail, worst first:</span>
      {SHADES.map((words, i) => <span key={words}><span class={`box shade-${i}`} aria-hidden="true" /> {words}</span>)}
      {full && <span><span class="box shade-none" aria-hidden="true" /> not called</span>}
    </span>
  );
}
