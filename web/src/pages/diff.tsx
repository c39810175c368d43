// Two revisions compared: by what they mean, with the traffic of what changes,
// and side by side.

import { useMemo } from "preact/hooks";
import type { Diff, EndpointDiff, FieldDiff } from "../api";
import { Pending } from "../components/act";
import { exact, NONE, plural, rate, ratio } from "../format";
import { hunks, layOut, pairLines } from "../linediff";
import { navigate } from "../navigate";
import { bytesPath, revisionsPath, structuralDiffPath } from "../resources";
import { diffHref, groupHref } from "../routes";
import { type Store, useData, useStore } from "../store";

/** Longer texts than this are not compared in the browser. */
const MOST_CHARS = 2_000_000;

export function DiffPage({ store, id }: { store: Store; id: string }) {
  const query = useStore(store, (s) => s.route.query);
  const [from, to] = [Number(query.get("from")), Number(query.get("to"))];
  const revisions = useData(store, revisionsPath(id));
  const all = [...(revisions.body?.items ?? [])].sort((a, b) => b.number - a.number);
  const shaOf = (n: number): string | undefined => all.find((r) => r.number === n)?.sha256;
  const left = useBytes(store, shaOf(from));
  const right = useBytes(store, shaOf(to));
  const structure = useData(store, structuralDiffPath(id, from, to));
  const missing = revisions.body !== undefined && [from, to].find((n) => shaOf(n) === undefined);
  const pick = (name: string, now: number, go: (n: number) => string) => (
    <label>{name} <select value={now} onChange={(e) => navigate(store, go(Number(e.currentTarget.value)))}>{all.map((r) => <option key={r.number} value={r.number}>{r.number}{r.message ? ` ${r.message.slice(0, 60)}` : ""}</option>)}</select></label>
  );
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar">
          <h1 id="title"><span class="crumb"><a href="/config">Configuration</a> / <a href={groupHref(id)}>{id}</a> / </span>{from} → {to}</h1>
          <span class="pick">{pick("From", from, (n) => diffHref(id, n, to))} {pick("to", to, (n) => diffHref(id, from, n))}</span>
        </header>
        {missing !== false && missing !== undefined ? <p class="problem">There is no revision {missing} of {id}, or its bytes were dropped with the old history.</p> : null}
        <Pending what="The structure" state={structure.state} problem={structure.problem} has={structure.body !== undefined}>
          {structure.body && <Structure d={structure.body} />}
        </Pending>
      </section>
      <section aria-labelledby="lines-title">
        <header class="bar"><h2 id="lines-title">Side by side</h2></header>
        {[left, right].map((x, i) => x.state === "failed" && <p key={i} class="problem">Revision {i === 0 ? from : to} cannot be read: {x.problem}.</p>)}
        {left.body !== undefined && right.body !== undefined ? <SideBySide before={left.body} after={right.body} from={from} to={to} /> : left.state !== "failed" && right.state !== "failed" && !missing && <p class="waiting">Reading both revisions…</p>}
      </section>
    </>
  );
}

function useBytes(store: Store, sha: string | undefined) {
  return useData(store, sha === undefined ? undefined : bytesPath(sha));
}

const SIGNS: Record<string, string> = { added: "+", removed: "−", changed: "~" };

function Structure({ d }: { d: Diff }) {
  const endpoints = [...(d.endpoints ?? [])].sort((a, b) => (b.traffic?.requests ?? 0) - (a.traffic?.requests ?? 0));
  const service = d.service ?? [];
  return (
    <div class="structure" data-testid="structure">
      {d.removes_traffic && <p class="problem bad"><strong>An endpoint with traffic goes.</strong> Its callers will get 404.</p>}
      {d.note && <p class="note">{d.note}</p>}
      {endpoints.length === 0 && service.length === 0 && !d.lines && <p class="none">No endpoint and no setting differs.</p>}
      {endpoints.length > 0 && (
        <div class="tablebox scroll">
          <table class="rows difftable">
            <caption class="sr">Endpoints that differ</caption>
            <thead><tr><th scope="col">Endpoint</th><th scope="col">Change</th><th scope="col" class="num">Requests, 24 h</th><th scope="col" class="num">Mean</th><th scope="col" class="num">Error ratio</th></tr></thead>
            <tbody>{endpoints.map((e) => <EndpointRow key={e.endpoint} e={e} />)}</tbody>
          </table>
        </div>
      )}
      {service.length > 0 && (
        <div class="tablebox">
          <h2>Service settings</h2>
          <Fields fields={service} />
        </div>
      )}
    </div>
  );
}

function EndpointRow({ e }: { e: EndpointDiff }) {
  const lost = e.change === "removed" && (e.traffic?.requests ?? 0) > 0;
  // What is new has had no traffic yet.
  const traffic = e.change === "added" && e.traffic?.requests === 0 ? null : e.traffic;
  return (
    <>
      <tr class={`change-${e.change}`}>
        <td><code><span aria-hidden="true">{SIGNS[e.change] ?? "~"} </span>{e.endpoint}</code></td>
        <td data-label="Change"><span class={lost ? "tone-bad" : undefined}>{e.change}{e.fields?.length ? `, ${plural(e.fields.length, "value")}` : ""}</span></td>
        <td class="num" data-label="Requests, 24 h">{traffic ? <span class={lost ? "tone-bad" : undefined}>{exact(traffic.requests)}</span> : NONE}</td>
        <td class="num" data-label="Mean">{traffic ? rate(traffic.requests_per_second) : NONE}</td>
        <td class="num" data-label="Error ratio">{traffic ? ratio(traffic.error_ratio) : NONE}</td>
      </tr>
      {(e.fields?.length ?? 0) > 0 && e.change === "changed" && (
        <tr class="detail"><td colSpan={5} class="wrap"><Fields fields={e.fields ?? []} /></td></tr>
      )}
    </>
  );
}

function Fields({ fields }: { fields: readonly FieldDiff[] }) {
  return (
    <ul class="fields">
      {fields.map((f) => (
        <li key={f.path}>
          <code>{f.path}</code>
          <span>{f.before !== undefined && f.before !== "" ? <del>{f.before}</del> : <span class="aside">not set</span>} → {f.after !== undefined && f.after !== "" ? <ins>{f.after}</ins> : <span class="aside">not set</span>}</span>
        </li>
      ))}
    </ul>
  );
}

function SideBySide({ before, after, from, to }: { before: string; after: string; from: number; to: number }) {
  const result = useMemo(() => {
    if (before.length + after.length > MOST_CHARS) return undefined;
    const [a, b] = [layOut(before), layOut(after)];
    return { ...hunks(pairLines(a.text, b.text)), laidOut: a.laidOut || b.laidOut };
  }, [before, after]);
  if (!result) return <p class="note">Together they have {exact(before.length + after.length)} characters, too many to compare here: use <code>binnacle config diff</code>.</p>;
  if (result.hunks.length === 0) return <p class="none">Not a byte differs.</p>;
  return (
    <>
      {result.laidOut && <p class="aside">One of them was a single line; it is laid out to be compared.</p>}
      <div class="tablebox scroll" tabIndex={0} role="region" aria-label="Side by side, scrolling">
        <table class="sides" data-testid="sides">
          <colgroup><col class="number" /><col /><col class="number" /><col /></colgroup>
          <thead class="sr"><tr><th scope="col">Line</th><th scope="col">Revision {from}</th><th scope="col">Line</th><th scope="col">Revision {to}</th></tr></thead>
          {result.hunks.map((h, i) => (
            <tbody key={i}>
              {h.skipped > 0 && <Skipped n={h.skipped} />}
              {h.pairs.map((p, k) => (
                <tr key={k} class={`pair-${p.kind}`}>
                  <td class="lineno">{p.leftLine}</td>
                  <td class={p.left === undefined ? "nothing" : "left"}>{p.left}</td>
                  <td class="lineno">{p.rightLine}</td>
                  <td class={p.right === undefined ? "nothing" : "right"}>{p.right}</td>
                </tr>
              ))}
            </tbody>
          ))}
          {result.skipped > 0 && <tbody><Skipped n={result.skipped} /></tbody>}
        </table>
      </div>
    </>
  );
}

function Skipped({ n }: { n: number }) {
  return <tr class="skipped"><td colSpan={4}>{plural(n, "line")} alike</td></tr>;
}
