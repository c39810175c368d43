// One group: what it should run and what it runs, its revisions, its rollouts.

import { useState } from "preact/hooks";
import { restartGroup, rollBack, startRollout } from "../actions";
import type { Diff, NewStep, Node, Revision, Rollout } from "../api";
import { Act, Pending, Progress } from "../components/act";
import { Charts } from "../components/charts";
import { Fact, Facts, Gone } from "../components/facts";
import { Time } from "../components/marks";
import { RolloutMark, RolloutProgress } from "../components/steps";
import { type Column, Table } from "../components/table";
import { bytes, exact, NONE, parseTime, plural, rate } from "../format";
import { navigate } from "../navigate";
import { groupsPath, loaded, revisionsPath, rolloutsPath, structuralDiffPath } from "../resources";
import { diffHref, groupHref, rolloutHref, uploadHref, withKey } from "../routes";
import { DEFAULT_STEPS, reach, revisionName, spread, stepSize, stepsProblem, underWay } from "../rollouts";
import { managerNow, type Store, useData, useStore } from "../store";
import { RolloutList } from "./config";

const NO_NODES: Node[] = [];

export function GroupPage({ store, id }: { store: Store; id: string }) {
  const groups = useData(store, groupsPath);
  const revisions = useData(store, revisionsPath(id));
  const rollouts = useData(store, rolloutsPath);
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? NO_NODES;
  const query = useStore(store, (s) => s.route.query);
  const g = groups.body?.items?.find((x) => x.name === id);
  if (!g) return groups.state === "failed" ? <Pending what="The groups" state="failed" problem={groups.problem} has={false}>{null}</Pending> : <Gone what="group" id={id} loading={groups.body === undefined} href="/config" all="All groups" />;
  const own = (rollouts.body?.items ?? []).filter((r) => r.group === id);
  const running = own.find((r) => underWay(r.state));
  const runs = spread(nodes, id);
  const wanted = Number(query.get("rollout"));
  const chosen = revisions.body?.items?.find((r) => r.number === wanted);
  const back = rollbackTarget(own, g.desired);
  const alive = nodes.filter((n) => n.managed && n.group === id && n.state === "alive").length;
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar">
          <h1 id="title"><span class="crumb"><a href="/config">Configuration</a> / </span>{id}</h1>
        </header>
        <Facts>
          <Fact name="Should run" testid="group-desired">{g.desired === 0 ? "own files" : `revision ${g.desired}`}</Fact>
          <Fact name="Runs">{runs.length === 0 ? NONE : runs.map((x) => <span key={x.revision} class={x.revision !== g.desired ? "tone-warn" : undefined}>{plural(x.nodes.length, "node")} on {x.revision === 0 ? "own file" : x.revision}{" "}</span>)}</Fact>
          <Fact name="Requests">{rate(g.activity?.requests_per_second)}</Fact>
          <Fact name="Format">{g.format}</Fact>
        </Facts>
        <div class="actions">
          <div class="row">
            <a class="button button-primary" href={uploadHref(id)} data-testid="upload">Upload a revision</a>
            {back !== undefined && (
              <Act
                store={store} action={rollBack(id)} label={`Roll back to ${back}`} danger testid="rollback"
                effect={<p><strong>{plural(alive, "node")}</strong> of {id} {alive === 1 ? "goes" : "go"} back from revision {g.desired} to <strong>{back}</strong>, the last that completed a rollout; {rate(g.activity?.requests_per_second)} go on.</p>}
                after={(d) => d.state === "done" && navigate(store, rolloutHref((d.body as Rollout).id))}
              />
            )}
            <Act
              store={store} action={restartGroup(id)} label={`Restart ${plural(alive, "node")}`} disabled={alive === 0 || running !== undefined} testid="restart-group"
              effect={<p>The workers of <strong>{plural(alive, "node")}</strong> are restarted one after the other: each drains, restarts and is ready before the next; {rate(g.activity?.requests_per_second)} go on.</p>}
              after={(d) => d.state === "done" && (d.body as Rollout | undefined)?.id && navigate(store, rolloutHref((d.body as Rollout).id))}
            />
          </div>
          <Progress store={store} of={rollBack(id).key} />
          <Progress store={store} of={restartGroup(id).key} />
        </div>
        {running && (
          <p class="note" data-testid="running">
            <a href={rolloutHref(running.id)}>{running.strategy === "restart" ? "A restart" : `The rollout of revision ${running.to}`}</a> is under way: <RolloutMark r={running} /> <RolloutProgress r={running} />{running.reason ? `. ${running.reason}` : ""}
          </p>
        )}
      </section>
      {chosen && <RolloutForm key={chosen.number} store={store} revision={chosen} desired={g.desired} size={alive} traffic={rate(g.activity?.requests_per_second)} running={running} />}
      <section aria-labelledby="revisions-title">
        <header class="bar"><h2 id="revisions-title">Revisions</h2></header>
        <Pending what="The revisions" state={revisions.state} problem={revisions.problem} has={revisions.body !== undefined}>
          <RevisionTable store={store} group={id} revisions={revisions.body?.items ?? []} desired={g.desired} nodes={runs} />
        </Pending>
      </section>
      <Charts store={store} />
      <section aria-labelledby="rollouts-title">
        <header class="bar"><h2 id="rollouts-title">Rollouts</h2></header>
        <Pending what="The rollouts" state={rollouts.state} problem={rollouts.problem} has={rollouts.body !== undefined}>
          <RolloutList store={store} rollouts={own} withGroup={false} />
        </Pending>
      </section>
    </>
  );
}

/** What a roll-back leads to, as far as the page can tell: the newest revision but the desired one that completed a rollout. */
function rollbackTarget(rollouts: readonly Rollout[], desired: number): number | undefined {
  const done = rollouts.filter((r) => r.state === "completed" && r.strategy !== "restart" && r.to !== desired && r.to > 0);
  return done.sort((a, b) => Date.parse(b.started) - Date.parse(a.started))[0]?.to;
}

function RevisionTable({ store, group, revisions, desired, nodes }: { store: Store; group: string; revisions: readonly Revision[]; desired: number; nodes: { revision: number; nodes: Node[] }[] }) {
  const query = useStore(store, (s) => s.route.query);
  const now = managerNow(store.state, Date.now());
  const [sort, setSort] = useState("");
  const on = (n: number): number => nodes.find((x) => x.revision === n)?.nodes.length ?? 0;
  const columns: Column<Revision>[] = [
    { key: "number", label: "Revision", sort: (r) => r.number, raw: (r) => r.number, cell: (r) => <>{r.number}{r.number === desired && <span class="tag">desired</span>}</> },
    { key: "message", label: "Message", sort: (r) => r.message, cell: (r) => <span class="message" title={r.message}>{r.message || NONE}</span> },
    { key: "nodes", label: "Nodes", title: "nodes that confirmed it", num: true, sort: (r) => on(r.number), cell: (r) => (on(r.number) === 0 ? NONE : exact(on(r.number))) },
    { key: "author", label: "By", sort: (r) => r.author, cell: (r) => r.author || NONE },
    { key: "created", label: "Created", sort: (r) => parseTime(r.created), cell: (r) => <Time at={parseTime(r.created)} now={now} /> },
    { key: "bytes", label: "Size", num: true, minor: true, sort: (r) => r.bytes, cell: (r) => bytes(r.bytes) },
    { key: "sha256", label: "SHA-256", minor: true, sort: (r) => r.sha256, cell: (r) => <code title={r.sha256}>{r.sha256.slice(0, 12)}</code> },
    { key: "warnings", label: "Warnings", minor: true, num: true, sort: (r) => r.warnings?.length ?? 0, cell: (r) => (r.warnings?.length ? <span title={r.warnings.map((w) => w.message).join("\n")}>{exact(r.warnings.length)}</span> : NONE) },
    {
      key: "do", label: "", sort: () => undefined,
      cell: (r) => (
        <span class="links">
          {r.number !== desired ? <a href={diffHref(group, desired || r.parent, r.number)}>{desired > 0 ? `Compare with ${desired}` : r.parent > 0 ? `Compare with ${r.parent}` : ""}</a> : r.parent > 0 && <a href={diffHref(group, r.parent, r.number)}>Compare with {r.parent}</a>}
          {r.number !== desired && <a href={groupHref(group) + withKey(query, "rollout", String(r.number))} data-testid={`roll-out-${r.number}`}>Roll out…</a>}
        </span>
      ),
    },
  ];
  const newest = [...revisions].sort((a, b) => b.number - a.number);
  return <Table caption="Revisions" columns={columns} rows={newest} id={(r) => String(r.number)} testid={(r) => `revision-row-${r.number}`} filter="" onFilter={() => undefined} sort={sort} onSort={setSort} brief empty="Nothing was uploaded yet: the nodes run their own files." />;
}

/** Chooses how a revision is brought to the group, and starts it. */
function RolloutForm({ store, revision, desired, size, traffic, running }: { store: Store; revision: Revision; desired: number; size: number; traffic: string; running: Rollout | undefined }) {
  const group = revision.group;
  const [strategy, setStrategy] = useState<"steps" | "all">("steps");
  const [steps, setSteps] = useState<readonly NewStep[]>(DEFAULT_STEPS);
  const diff = useStore(store, (s) => (desired > 0 ? loaded(s.data, structuralDiffPath(group, desired, revision.number)) : undefined));
  const problem = strategy === "steps" ? stepsProblem(steps) : "";
  const action = startRollout(group, strategy === "steps" ? { revision: revision.number, strategy, steps: [...steps] } : { revision: revision.number, strategy });
  const change = (i: number, s: NewStep): void => setSteps(steps.with(i, s));
  return (
    <section class="panel" aria-labelledby="form-title" data-testid="rollout-form">
      <header class="bar">
        <h2 id="form-title">Roll out revision {revision.number}{revision.message ? `: ${revision.message}` : ""}</h2>
        <a class="close" href={groupHref(group)}>Close</a>
      </header>
      {diff && <DiffSummary group={group} diff={diff.body} problem={diff.state === "failed" ? diff.problem : ""} from={desired} to={revision.number} />}
      <fieldset class="choice">
        <legend class="sr">Strategy</legend>
        <label><input type="radio" name="strategy" checked={strategy === "steps"} onChange={() => setStrategy("steps")} data-testid="strategy-steps" /> In steps, with gates</label>
        <label><input type="radio" name="strategy" checked={strategy === "all"} onChange={() => setStrategy("all")} data-testid="strategy-all" /> To all {plural(size, "node")} at once</label>
      </fieldset>
      {strategy === "steps" ? (
        <>
          <p class="aside">After each step the nodes that have the revision are compared with those that do not, by their telemetry. A gate that fails rolls all of them back; one with too few requests holds.</p>
          <table class="steplist">
            <thead><tr><th scope="col">Step</th><th scope="col" colSpan={2}>Reaches</th><th scope="col">Watched for, s</th><th scope="col">Nodes</th><td /></tr></thead>
            <tbody>
              {steps.map((s, i) => (
                <tr key={i}>
                  <th scope="row">{i + 1}</th>
                  <td><input type="number" min={1} aria-label={`Step ${i + 1} reaches`} value={s.nodes ?? s.percent ?? ""} onInput={(e) => change(i, s.nodes !== undefined ? { nodes: Number(e.currentTarget.value), bake: s.bake } : { percent: Number(e.currentTarget.value), bake: s.bake })} /></td>
                  <td>
                    <select aria-label={`Unit of step ${i + 1}`} value={s.nodes !== undefined ? "nodes" : "percent"} onChange={(e) => change(i, e.currentTarget.value === "nodes" ? { nodes: s.percent ?? 1, bake: s.bake } : { percent: s.nodes ?? 100, bake: s.bake })}>
                      <option value="nodes">nodes</option>
                      <option value="percent">%</option>
                    </select>
                  </td>
                  <td><input type="number" min={0} aria-label={`Step ${i + 1} is watched for, in seconds`} value={s.bake} onInput={(e) => change(i, { ...s, bake: Number(e.currentTarget.value) })} data-testid={`bake-${i}`} /></td>
                  <td class="aside">{exact(reach(s, size))} of {exact(size)}</td>
                  <td>{steps.length > 1 && <button type="button" class="linkish" onClick={() => setSteps(steps.filter((_, k) => k !== i))} aria-label={`Leave out step ${i + 1}`}>Leave out</button>}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <button type="button" class="linkish" onClick={() => setSteps([...steps.slice(0, -1), { percent: 50, bake: 120 }, ...steps.slice(-1)])}>Add a step</button>
        </>
      ) : (
        <p class="note">All nodes get it at once and nobody compares: a revision that answers with errors is stopped by nothing. Nodes still refuse what they cannot build.</p>
      )}
      {problem && <p class="problem" role="status">{problem}</p>}
      <div class="actions">
        <div class="row">
          <Act
            store={store} action={action} primary disabled={problem !== "" || size === 0} testid="start-rollout"
            label={strategy === "steps" ? `Start with ${steps[0] ? stepSize(steps[0]) : ""}` : `Roll out to ${plural(size, "node")}`} title={`Roll out revision ${revision.number} to ${group}?`}
            effect={
              <>
                <p>
                  {strategy === "steps" ? <><strong>{steps[0] ? plural(reach(steps[0], size), "node") : ""}</strong> of {exact(size)} {reach(steps[0] ?? { bake: 0 }, size) === 1 ? "gets" : "get"} revision {revision.number} first</> : <><strong>{plural(size, "node")}</strong> get revision {revision.number} now</>}, in place of {revisionName(desired)}. The group serves <strong>{traffic}</strong>.
                </p>
                {diff?.body?.removes_traffic && <p class="tone-bad">{removed(diff.body)}</p>}
                {running && <p class="tone-warn">The rollout of revision {running.to} that is under way ends: this one takes its place.</p>}
              </>
            }
            after={(d) => d.state === "done" && navigate(store, rolloutHref((d.body as Rollout).id))}
          />
          {size === 0 && <span class="aside">No node of {group} is alive.</span>}
        </div>
        <Progress store={store} of={action.key} />
      </div>
    </section>
  );
}

/** Names the endpoints with traffic that a revision takes away. */
function removed(d: Diff): string {
  const gone = (d.endpoints ?? []).filter((e) => e.change === "removed" && (e.traffic?.requests ?? 0) > 0);
  const all = gone.reduce((n, e) => n + (e.traffic?.requests ?? 0), 0);
  const first = gone[0];
  return `${plural(gone.length, "endpoint")} with traffic ${gone.length === 1 ? "goes" : "go"}${first ? `, ${first.endpoint}${gone.length > 1 ? " the first" : ""}` : ""}: ${exact(all)} requests in the last 24 h.`;
}

function DiffSummary({ group, diff, problem, from, to }: { group: string; diff: Diff | undefined; problem: string; from: number; to: number }) {
  if (!diff) return <p class="aside">{problem ? `The difference to revision ${from} cannot be told: ${problem}.` : `Comparing with revision ${from}…`} <a href={diffHref(group, from, to)}>Compare line by line</a></p>;
  const count = (change: string): number => (diff.endpoints ?? []).filter((e) => e.change === change).length;
  const parts = (["added", "changed", "removed"] as const).filter((c) => count(c) > 0).map((c) => `${plural(count(c), "endpoint")} ${c}`);
  if (diff.service?.length) parts.push(`${plural(diff.service.length, "service setting")} changed`);
  return (
    <p>
      Against revision {from}: {parts.length > 0 ? parts.join(", ") : "nothing that matters differs"}. <a href={diffHref(group, from, to)}>Compare</a>
      {diff.removes_traffic && <strong class="tone-bad"> {removed(diff)}</strong>}
    </p>
  );
}
