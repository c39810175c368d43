// A new revision: choose or paste a configuration, have it checked, keep it.
// Nothing changes on any node before it is rolled out.

import { useEffect, useRef, useState } from "preact/hooks";
import { pushRevision } from "../actions";
import type { CreatedRevision, Fault } from "../api";
import { Act, Progress } from "../components/act";
import { bytes, exact, plural } from "../format";
import { groupsPath, revisionsPath } from "../resources";
import { diffHref, groupHref } from "../routes";
import { type Store, useData, useStore } from "../store";

/** Lines shown before and after a faulty one. */
const CONTEXT = 2;

export function UploadPage({ store, id }: { store: Store; id: string }) {
  const [text, setText] = useState("");
  const [message, setMessage] = useState("");
  const [name, setName] = useState("");
  const area = useRef<HTMLTextAreaElement>(null);
  // The first revision settles the format of its group.
  const [format, setFormat] = useState("krakend");
  const newest = useData(store, revisionsPath(id)).body?.items?.reduce((n, r) => Math.max(n, r.number), 0);
  const check = pushRevision(id, text, "", true, newest === 0 ? format : "");
  const push = pushRevision(id, text, message, false, newest === 0 ? format : "");
  const checked = useStore(store, (s) => s.doing.get(check.key));
  const pushed = useStore(store, (s) => s.doing.get(push.key));
  const group = useData(store, groupsPath).body?.items?.find((g) => g.name === id);
  // What another visit left belongs to another text.
  useEffect(() => forget(store, [check.key, push.key]), [id]);
  const edit = (t: string): void => {
    setText(t);
    if (checked || pushed) forget(store, [check.key, push.key]);
  };
  const take = async (f: File | undefined): Promise<void> => {
    if (!f) return;
    setName(f.name);
    edit(await f.text());
  };
  const last = [checked, pushed].filter((d) => d !== undefined).sort((a, b) => b.at - a.at)[0];
  const made = pushed?.state === "done" ? (pushed.body as CreatedRevision) : undefined;
  const verdict = checked?.state === "done" ? (checked.body as CreatedRevision) : undefined;
  const goTo = (f: Fault): void => {
    const t = area.current;
    if (!t || !f.line) return;
    const from = text.split("\n").slice(0, f.line - 1).reduce((n, l) => n + l.length + 1, 0);
    t.focus();
    t.setSelectionRange(from, from + (text.split("\n")[f.line - 1]?.length ?? 0));
    t.scrollTop = Math.max(0, (f.line - 6) * 18);
  };
  return (
    <section aria-labelledby="title">
      <header class="bar">
        <h1 id="title"><span class="crumb"><a href="/config">Configuration</a> / <a href={groupHref(id)}>{id}</a> / </span>Upload</h1>
        <span class="aside">{newest !== undefined && `the newest revision is ${newest === 0 ? "none" : newest}`}{group ? `, format ${group.format}` : ""}</span>
      </header>
      <div class="panel form" onDragOver={(e) => e.preventDefault()} onDrop={(e) => { e.preventDefault(); void take(e.dataTransfer?.files[0]); }}>
        <div class="row">
          <label class="button button-plain filebutton">
            Choose a file
            <input type="file" class="sr" accept=".json,application/json,text/plain" onChange={(e) => void take(e.currentTarget.files?.[0])} />
          </label>
          <span class="aside">{name || "or paste it, or drop it here"}{text !== "" && ` · ${bytes(new TextEncoder().encode(text).length)}, ${plural(text.split("\n").length, "line")}`}</span>
        </div>
        <label class="field">Configuration
          <textarea ref={area} class="code" rows={18} spellcheck={false} value={text} onInput={(e) => edit(e.currentTarget.value)} wrap="off" data-testid="config-text" placeholder={group?.format === "opaque" ? "" : '{\n  "version": 3,\n  …\n}'} />
        </label>
        <label class="field">What it changes
          <input type="text" value={message} maxLength={200} placeholder="raise the timeout of /search" onInput={(e) => setMessage(e.currentTarget.value)} data-testid="config-message" />
        </label>
        {newest === 0 && (
          <label class="field short">Format of this group, for good
            <select value={format} onChange={(e) => setFormat(e.currentTarget.value)}>
              <option value="krakend">krakend: parsed, built and compared by endpoints</option>
              <option value="opaque">opaque: for a supervised program, checked by the node's own command</option>
            </select>
          </label>
        )}
        <div class="actions">
          <div class="row">
            <Act store={store} action={check} label="Check" disabled={text.trim() === ""} testid="check" />
            <Act store={store} action={push} label="Keep as a revision" primary disabled={text.trim() === ""} testid="push" />
            <span class="aside">Neither changes a node: a revision is rolled out in a step of its own.</span>
          </div>
          {last?.state === "running" && <Progress store={store} of={last === pushed ? push.key : check.key} />}
        </div>
      </div>
      {last?.state === "failed" && <Faults text={text} faults={last.faults} problem={last.problem} goTo={goTo} />}
      {last?.state === "done" && last === checked && verdict && (
        <div class="note good" role="status" data-testid="accepted">
          <p><strong>It is fine.</strong> {verdict.existing ? `The same bytes are revision ${verdict.number} already.` : "It would be taken as it is."}</p>
          <Warnings faults={verdict.warnings ?? []} />
        </div>
      )}
      {made && (
        <div class="note good" role="status" data-testid="made">
          <p><strong>{made.existing ? `These bytes are revision ${made.number} already.` : `Revision ${made.number} is kept.`}</strong> No node runs it before it is rolled out.</p>
          <Warnings faults={made.warnings ?? []} />
          <p class="links">
            <a href={`${groupHref(id)}?rollout=${made.number}`} data-testid="to-rollout">Roll it out…</a>
            {(group?.desired ?? 0) > 0 && group?.desired !== made.number && <a href={diffHref(id, group?.desired ?? 0, made.number)}>Compare with {group?.desired}</a>}
            <a href={groupHref(id)}>To the group</a>
          </p>
        </div>
      )}
    </section>
  );
}

function forget(store: Store, keys: readonly string[]): void {
  for (const k of keys) store.progress(k, undefined);
}

function Warnings({ faults }: { faults: readonly Fault[] }) {
  if (faults.length === 0) return null;
  return <ul>{faults.map((f, i) => <li key={i}>{f.line ? `line ${f.line}: ` : ""}{f.message}</li>)}</ul>;
}

/** All reasons for which a configuration is refused, each at its line. */
function Faults({ text, faults, problem, goTo }: { text: string; faults: readonly Fault[]; problem: string; goTo: (f: Fault) => void }) {
  const lines = text.split("\n");
  return (
    <div class="faults" role="alert" data-testid="faults">
      <p class="problem"><strong>Refused{faults.length > 0 ? `, for ${plural(faults.length, "reason")}` : ""}.</strong> {faults.length === 0 ? problem : "Nothing was kept."}</p>
      {faults.map((f, i) => (
        <div key={i} class="fault" data-testid="fault">
          <p>
            {f.line ? <button type="button" class="linkish" onClick={() => goTo(f)}>Line {exact(f.line)}{f.column ? `, column ${exact(f.column)}` : ""}</button> : <span>No line</span>}
            <span class="tag">{f.stage}</span> {f.path && <code>{f.path}</code>}
          </p>
          <p class="tone-bad">{f.message}</p>
          {f.line && lines[f.line - 1] !== undefined && (
            <pre class="excerpt">
              {lines.slice(Math.max(0, f.line - 1 - CONTEXT), f.line + CONTEXT).map((l, k) => {
                const n = Math.max(0, (f.line ?? 1) - 1 - CONTEXT) + k + 1;
                return <span key={n} class={n === f.line ? "faulty" : undefined}><span class="lineno">{n}</span>{cut(l)}{"\n"}</span>;
              })}
            </pre>
          )}
        </div>
      ))}
    </div>
  );
}

/** A line that is longer than a screen is cut: a configuration may be one line. */
const cut = (l: string): string => (l.length > 300 ? `${l.slice(0, 300)}…` : l);
