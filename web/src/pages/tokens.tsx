// Join tokens and API tokens, for admins. A secret is shown once.

import { useState } from "preact/hooks";
import { createToken, revokeToken } from "../actions";
import type { CreatedToken, Token } from "../api";
import { Act, Pending, Progress } from "../components/act";
import { Time } from "../components/marks";
import { type Column, Table } from "../components/table";
import { exact, NONE, parseTime, span } from "../format";
import { navigate } from "../navigate";
import { groupsPath, tokensPath } from "../resources";
import { withKey } from "../routes";
import { managerNow, type Store, useData, useStore } from "../store";
import { CopyBlock } from "./empty";

const FIELDS = ["kind", "name", "role", "group", "id"] as const;

export function TokensPage({ store }: { store: Store }) {
  const got = useData(store, tokensPath);
  const query = useStore(store, (s) => s.route.query);
  const [sort, setSort] = useState("");
  const now = managerNow(store.state, Date.now());
  const columns: Column<Token>[] = [
    { key: "name", label: "Token", sort: (t) => t.name || t.id, cell: (t) => t.name || t.id },
    { key: "kind", label: "Kind", sort: (t) => t.kind, cell: (t) => t.kind },
    { key: "role", label: "May", sort: (t) => t.role, cell: (t) => (t.kind === "join" ? `join ${t.group || "default"}` : [t.role === "nobody" ? "" : t.role, ...(t.rights ?? [])].filter(Boolean).join(", ")) },
    { key: "uses", label: "Uses", num: true, sort: (t) => t.uses, raw: (t) => t.uses, cell: (t) => (t.kind === "join" ? (t.uses_max > 0 ? `${exact(t.uses)} of ${exact(t.uses_max)}` : exact(t.uses)) : NONE) },
    { key: "created", label: "Created", sort: (t) => parseTime(t.created), cell: (t) => <Time at={parseTime(t.created)} now={now} /> },
    { key: "expires", label: "Ends", sort: (t) => parseTime(t.expires), cell: (t) => ends(t, now) },
    { key: "id", label: "Id", minor: true, sort: (t) => t.id, cell: (t) => <code>{t.id}</code> },
    {
      key: "do", label: "", sort: () => undefined,
      cell: (t) => (
        <>
          <Act
            store={store} action={revokeToken(t.id)} label="Revoke" danger title={`Revoke ${t.name || t.id}?`} testid={`revoke-${t.id}`}
            effect={t.kind === "join" ? <p>No node can join with it any more. The {t.uses === 1 ? "node" : `${exact(t.uses)} nodes`} that did {t.uses === 1 ? "stays" : "stay"}.</p> : <p>What uses it is refused from now on, and browsers that logged in with it are logged out.</p>}
          />
          <Progress store={store} of={revokeToken(t.id).key} />
        </>
      ),
    },
  ];
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar"><h1 id="title">Tokens</h1></header>
        <Pending what="The tokens" state={got.state} problem={got.problem} has={got.body !== undefined}>
          <Table
            caption="Tokens" columns={columns} rows={got.body?.items ?? []} id={(t) => t.id} testid={(t) => `token-row-${t.id}`} sort={sort} onSort={setSort}
            fields={(t) => ({ kind: t.kind, name: t.name ?? "", role: t.role ?? "", group: t.group ?? "", id: t.id })} fieldNames={FIELDS} hint="kind:join" filter={query.get("q") ?? ""} onFilter={(q) => navigate(store, withKey(query, "q", q), true)}
            empty="There is no token."
          />
        </Pending>
      </section>
      <NewToken store={store} />
    </>
  );
}

function ends(t: Token, now: number) {
  const at = parseTime(t.expires);
  if (at === undefined) return "never";
  return at < now ? <span class="tone-warn">ended {span(now - at)} ago</span> : <span>in {span(at - now)}</span>;
}

const LIVES: readonly (readonly [string, number])[] = [["1 hour", 3600], ["1 day", 86400], ["30 days", 30 * 86400], ["1 year", 365 * 86400], ["never", 0]];

function NewToken({ store }: { store: Store }) {
  const groups = useData(store, groupsPath);
  const [kind, setKind] = useState<"join" | "api">("join");
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [rights, setRights] = useState<readonly string[]>([]);
  const [group, setGroup] = useState("default");
  const [life, setLife] = useState(86400);
  const [uses, setUses] = useState(1);
  const body = kind === "join" ? { kind, name, group, expires_in: life, uses_max: uses } : { kind, name, role, rights, expires_in: life };
  const action = createToken(body);
  const doing = useStore(store, (s) => s.doing.get(action.key));
  const made = doing?.state === "done" ? (doing.body as CreatedToken) : undefined;
  const known = [...new Set(["default", ...(groups.body?.items ?? []).map((g) => g.name)])];
  return (
    <section aria-labelledby="new-title">
      <header class="bar"><h2 id="new-title">Make one</h2></header>
      {made ? (
        <div class="panel form" data-testid="made-token">
          <p><strong>This is shown once.</strong> {made.kind === "join" ? <>Put it into a file on the node, mode 0600, and name that as <code>token_file</code> in its <code>@cluster</code> block.</> : <>Send it as <code>Authorization: Bearer …</code>, or log in with it.</>}</p>
          <CopyBlock text={made.secret} />
          <div class="row"><button type="button" class="button button-plain" onClick={() => store.progress(action.key, undefined)}>I have kept it</button></div>
        </div>
      ) : (
        <div class="panel form">
          <fieldset class="choice">
            <legend class="sr">Kind</legend>
            <label><input type="radio" name="kind" checked={kind === "join"} onChange={() => setKind("join")} /> For nodes to join</label>
            <label><input type="radio" name="kind" checked={kind === "api"} onChange={() => setKind("api")} data-testid="kind-api" /> For the API and the page</label>
          </fieldset>
          <div class="row fields">
            <label class="field short">Name <input type="text" value={name} maxLength={80} onInput={(e) => setName(e.currentTarget.value)} placeholder={kind === "api" ? "stands as the author of what it does" : "optional"} data-testid="token-name" /></label>
            {kind === "join" ? (
              <>
                <label class="field short">Group <input list="groups" value={group} onInput={(e) => setGroup(e.currentTarget.value)} /></label>
                <datalist id="groups">{known.map((g) => <option key={g} value={g} />)}</datalist>
                <label class="field short">Uses <input type="number" min={0} value={uses} onInput={(e) => setUses(Math.max(0, Math.floor(Number(e.currentTarget.value))))} title="0 means no limit" /></label>
              </>
            ) : (
              <>
                <label class="field short">Role
                  <select value={role} onChange={(e) => setRole(e.currentTarget.value)} data-testid="token-role">
                    {["nobody", "viewer", "operator", "admin"].map((r) => <option key={r} value={r}>{r}</option>)}
                  </select>
                </label>
                <fieldset class="field short"><legend>And single rights</legend>
                  {["traces:read", "otlp:write"].map((r) => <label key={r}><input type="checkbox" checked={rights.includes(r)} onChange={(e) => setRights(e.currentTarget.checked ? [...rights, r] : rights.filter((x) => x !== r))} /> <code>{r}</code></label>)}
                </fieldset>
              </>
            )}
            <label class="field short">Ends after
              <select value={life} onChange={(e) => setLife(Number(e.currentTarget.value))}>{LIVES.map(([words, s]) => <option key={s} value={s}>{words}</option>)}</select>
            </label>
          </div>
          <div class="actions">
            <div class="row"><Act store={store} action={action} label="Make the token" primary disabled={kind === "api" && name.trim() === ""} testid="make-token" /></div>
            <Progress store={store} of={action.key} done={() => ""} />
          </div>
        </div>
      )}
    </section>
  );
}
