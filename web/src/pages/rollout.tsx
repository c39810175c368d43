// One rollout: the path of its steps, the verdicts with their evidence, what
// happens next, and the buttons that steer it.

import { useMemo, useState } from "preact/hooks";
import { may } from "../access";
import { rollBack, startRollout, steerRollout } from "../actions";
import type { Comparison, ExactTest, History, Rollout, RolloutReport, Saturation, Verdict } from "../api";
import { Act, Pending, Progress } from "../components/act";
import { Marks, marksOf } from "../components/charts";
import { Fact, Facts, Gone } from "../components/facts";
import { Time } from "../components/marks";
import { type Line, Plot } from "../components/plot";
import { isOpen, RolloutMark, StepPath, VerdictMark } from "../components/steps";
import { bytes, exact, NONE, parseTime, plural, rate, ratio, seconds, sig3, span } from "../format";
import { navigate } from "../navigate";
import { evidencePaths, type Loaded, loaded, type Path, type PromAnswer, revisionsPath, rolloutPath, shownStep } from "../resources";
import { diffHref, groupHref, nodeHref, rolloutHref, withKey } from "../routes";
import { byBadness, evalue, nextWords, promoteLabel, question, reach, revisionName, share, stepSize, touched, underWay } from "../rollouts";
import { type Matrix, needsLog, extent, onGrid, type Range } from "../series";
import { managerNow, type Store, useData, useNow, useStore } from "../store";

export function RolloutPage({ store, id }: { store: Store; id: string }) {
  const got = useData(store, rolloutPath(id));
  const nodes = useStore(store, (s) => s.overview?.nodes) ?? [];
  const query = useStore(store, (s) => s.route.query);
  useNow();
  const now = managerNow(store.state, Date.now());
  const r = got.body;
  if (!r) return got.state === "failed" && got.status !== 404 ? <Pending what="The rollout" state="failed" problem={got.problem} has={false}>{null}</Pending> : <Gone what="rollout" id={id} loading={got.state === "loading"} href="/config" all="All groups" />;
  const names = new Map(nodes.map((n) => [n.id, n.name || n.id]));
  const nameOf = (n: string): string => names.get(n) ?? n;
  const shown = shownStep(r, query);
  const step = r.steps?.[shown];
  const next = nextWords(r, now);
  const refused = Object.entries(r.refused ?? {});
  return (
    <>
      <section aria-labelledby="title" data-testid="rollout">
        <header class="bar">
          <h1 id="title">
            <span class="crumb"><a href="/config">Configuration</a> / <a href={groupHref(r.group)}>{r.group}</a> / </span>
            {r.strategy === "restart" ? "Restart" : `${r.from === 0 ? "own files" : r.from} → ${r.to === 0 ? "own files" : r.to}`}
          </h1>
          <span data-testid="rollout-state" data-value={r.state}><RolloutMark r={r} /></span>
          <RevisionMessage store={store} r={r} />
        </header>
        {r.reason && <p class={r.state === "failed" || r.state === "rolling_back" ? "problem bad" : "note"} data-testid="rollout-reason">{sentenceOf(r.reason)}</p>}
        <Facts>
          <Fact name="Started"><Time at={parseTime(r.started)} now={now} exact /></Fact>
          {parseTime(r.ended) !== undefined && <Fact name="Ended"><Time at={parseTime(r.ended)} now={now} exact /></Fact>}
          <Fact name={parseTime(r.ended) === undefined ? "For" : "Took"}>{span((parseTime(r.ended) ?? now) - (parseTime(r.started) ?? now))}</Fact>
          <Fact name="By">{r.author || NONE}</Fact>
          <Fact name="Confirmed" testid="confirmed">{exact(r.confirmed?.length ?? 0)}</Fact>
          {(r.returned?.length ?? 0) > 0 && <Fact name="Back">{exact(r.returned?.length ?? 0)} of {exact(Math.max(touched(r), r.returned?.length ?? 0))}</Fact>}
          {r.from > 0 && r.to > 0 && r.strategy !== "restart" && <Fact name="Difference"><a href={diffHref(r.group, r.from, r.to)}>Compare {r.from} and {r.to}</a></Fact>}
        </Facts>
      </section>
      <section class="panel" aria-label="Steps">
        <StepPath r={r} now={now} nameOf={nameOf} shown={shown} hrefOf={(i) => withKey(query, "step", String(i))} />
        {next && <p class="next" data-testid="next"><strong>Next:</strong> {next}</p>}
        <Steer store={store} r={r} />
        {refused.length > 0 && (
          <ul class="refusals">
            {refused.slice(0, 20).map(([node, why]) => <li key={node}><a href={nodeHref(node)}>{nameOf(node)}</a> refused: <span class="tone-bad">{why}</span></li>)}
            {refused.length > 20 && <li class="aside">and {exact(refused.length - 20)} more</li>}
          </ul>
        )}
      </section>
      {step?.verdict && <Evidence store={store} v={step.verdict} open={isOpen(step)} name={shown === (r.steps?.length ?? 0) - 1 ? "all nodes" : stepSize(step)} now={now} nameOf={nameOf} />}
      {r.report && <Report report={r.report} now={now} />}
    </>
  );
}

function RevisionMessage({ store, r }: { store: Store; r: Rollout }) {
  const message = useStore(store, (s) => loaded(s.data, revisionsPath(r.group)).body?.items?.find((x) => x.number === r.to)?.message);
  return message && r.strategy !== "restart" ? <span class="aside">{message}</span> : null;
}

/** A reason as a sentence of its own. */
const sentenceOf = (text: string): string => `${(text[0] ?? "").toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/** Buttons that say what they do, for a rollout under way; and the way back, or another try, for one that ended. */
function Steer({ store, r }: { store: Store; r: Rollout }) {
  const me = useStore(store, (s) => s.me);
  const overview = useStore(store, (s) => s.overview);
  if (!may(me, "operator")) return null;
  const group = (overview?.nodes ?? []).filter((n) => n.managed && n.group === r.group && n.state !== "left");
  const traffic = rate(group.reduce((sum, n) => sum + (n.activity?.requests_per_second ?? 0), 0));
  const key = steerRollout(r.id, "abort").key;
  const count = touched(r);
  const verdict = r.steps?.[r.step ?? 0]?.verdict;
  const after = r.steps?.[(r.step ?? 0) + 1];
  const more = after ? Math.max(0, reach(after, group.length) - count) : 0;
  const steered = r.strategy === "steps" && (r.state === "running" || r.state === "paused");
  return (
    <div class="actions" data-testid="steer">
      <div class="row">
        {steered && (
          <Act
            store={store} action={steerRollout(r.id, "promote")} label={promoteLabel(r)} primary={r.steps?.[r.step ?? 0]?.state === "asking"} testid="promote"
            effect={
              <>
                <p>The step passes without its gate, in your name. {after ? <><strong>{plural(more, "more node")}</strong> {more === 1 ? "gets" : "get"} revision {r.to}: {exact(Math.min(group.length, count + more))} of {exact(group.length)} have it then.</> : <>All {exact(group.length)} nodes keep revision {r.to}.</>}</p>
                {verdict && <p>The gate says <VerdictMark result={verdict.result} />: {verdict.reason}</p>}
              </>
            }
          />
        )}
        {steered && r.state === "running" && <Act store={store} action={steerRollout(r.id, "pause")} label="Pause" testid="pause" effect={<p>{plural(count, "node")} {count === 1 ? "keeps" : "keep"} revision {r.to}, and no more get it until the rollout is resumed. A failing gate still rolls it back.</p>} />}
        {steered && r.state === "paused" && <Act store={store} action={steerRollout(r.id, "resume")} label="Resume" testid="resume" effect={<p>The rollout goes on from step {exact((r.step ?? 0) + 1)}.</p>} />}
        {underWay(r.state) && r.state !== "rolling_back" && (
          <Act
            store={store} action={steerRollout(r.id, "abort")} danger testid="abort"
            label={r.strategy === "restart" ? "Stop restarting" : count === 0 ? "Abort" : `Roll back ${plural(count, "node")} to ${r.from === 0 ? "own files" : r.from}`}
            effect={r.strategy === "restart" ? <p>Nodes that were not restarted yet stay as they are.</p> : <p>The rollout ends, and <strong>{plural(count, "node")}</strong> {count === 1 ? "goes" : "go"} back to {revisionName(r.from)}. The group serves {traffic}.</p>}
          />
        )}
        {r.state === "completed" && r.strategy !== "restart" && r.from > 0 && (
          <Act
            store={store} action={rollBack(r.group)} label={`Roll back ${plural(group.length, "node")} from ${r.to}`} danger
            effect={<p><strong>{plural(group.length, "node")}</strong> go back to the last revision before {r.to} that completed a rollout. The group serves {traffic}.</p>}
            after={(d) => d.state === "done" && navigate(store, rolloutHref((d.body as Rollout).id))}
          />
        )}
        {(r.state === "failed" || r.state === "aborted" || r.state === "superseded") && r.strategy !== "restart" && <a class="button button-plain" href={`${groupHref(r.group)}?rollout=${r.to}`}>Try revision {r.to} again…</a>}
      </div>
      <Progress store={store} of={key} />
      <Progress store={store} of={rollBack(r.group).key} />
      <Progress store={store} of={startRollout(r.group, { revision: r.to, strategy: "" }).key} done={() => "Started."} />
    </div>
  );
}

const ERROR_LINES: readonly Line[] = [{ label: "canary", stroke: "canary", width: 1.75 }, { label: "control", stroke: "control", dash: [4, 3] }];

/** A verdict with what it rests on: two small charts and the numbers of the test. */
function Evidence({ store, v, open, name, now, nameOf }: { store: Store; v: Verdict; open: boolean; name: string; now: number; nameOf: (id: string) => string }) {
  const paths = evidencePaths(v);
  const list = (ids: readonly string[] | undefined): string => {
    const all = (ids ?? []).map(nameOf);
    return all.length === 0 ? NONE : all.length <= 5 ? all.join(", ") : `${all.slice(0, 4).join(", ")} and ${exact(all.length - 4)} more`;
  };
  const from = parseTime(v.from);
  const at = parseTime(v.at);
  return (
    <section aria-labelledby="evidence-title" data-testid="evidence">
      <header class="bar">
        <h2 id="evidence-title">The gate after {name}</h2>
        <VerdictMark result={v.result} open={open} />
        <span class="aside">{plural(v.looks, "look")}, the newest <Time at={at} now={now} exact /></span>
      </header>
      <p class={v.result === "fail" ? "problem bad" : open || v.result === "pass" ? "note good" : "note"}>{sentenceOf(v.reason)}</p>
      <Facts>
        <Fact name={`Canary, ${plural(v.canaries?.length ?? 0, "node")}`}>{list(v.canaries)}</Fact>
        <Fact name="Control">{v.control === "before" ? "the same nodes, before the step" : list(v.controls)}</Fact>
        {from !== undefined && at !== undefined && <Fact name="Window">{span(at - from)}</Fact>}
      </Facts>
      {paths && (
        <div class="twocharts">
          <EvidenceChart store={store} title="Error ratio" testid="evidence-errors" range={paths.range} canary={paths.canary.errors} control={paths.control?.errors} atLeast={0.01} format={ratio} />
          <EvidenceChart store={store} title="p99" testid="evidence-p99" range={paths.range} canary={paths.canary.p99} control={paths.control?.p99} atLeast={0.001} format={seconds} />
        </div>
      )}
      {(v.comparisons?.length ?? 0) > 0 && <Comparisons list={v.comparisons ?? []} at={v.at} open={open} />}
      {(v.saturation?.length ?? 0) > 0 && <SaturationTable list={v.saturation ?? []} at={v.at} open={open} />}
      {v.history && <HistoryLine h={v.history} />}
      {v.left_out ? <p class="aside">{plural(v.left_out, "comparison")} with weaker evidence {v.left_out === 1 ? "is" : "are"} left out.</p> : null}
      {v.test && <p class="aside">Test: {v.test}. A canary as good as its control fails with a probability of at most {ratio(v.budget)}, over all comparisons and looks{v.history?.used && ", in minutes like the hours before; of at most five times that if errors rise on both sides to where they were not then"}.</p>}
    </section>
  );
}

function column(l: Loaded<PromAnswer<Matrix>>, r: Range): (number | null)[] | undefined {
  const result = l.body?.data?.result;
  if (!result) return undefined;
  return [...onGrid(result, "", r).values()][0] ?? Array.from({ length: Math.floor((r.end - r.start) / r.step) + 1 }, () => null);
}

function EvidenceChart({ store, title, testid, range, canary, control, atLeast, format }: { store: Store; title: string; testid: string; range: Range; canary: Path<PromAnswer<Matrix>>; control: Path<PromAnswer<Matrix>> | undefined; atLeast: number; format: (v: number) => string }) {
  const a = useData(store, canary);
  const b = useData(store, control);
  const events = useStore(store, (s) => s.events);
  const nodes = useStore(store, (s) => s.overview?.nodes);
  const names = useMemo(() => new Map((nodes ?? []).map((n) => [n.id, n.name || n.id])), [nodes]);
  const axis = { from: range.start, to: range.end };
  const marks = useMemo(() => marksOf(events, axis), [events, range.start, range.end]);
  const [hover, setHover] = useState<number>();
  const data = useMemo(() => {
    const [x, y] = [column(a, range), control ? column(b, range) : undefined];
    if (!x || (control && !y)) return undefined;
    const time = x.map((_, i) => range.start + i * range.step);
    return { columns: [time, x, ...(y ? [y] : [])], lines: y ? ERROR_LINES : ERROR_LINES.slice(0, 1) };
  }, [a.body, b.body, range.start, range.end]);
  const failed = a.state === "failed" ? a.problem : control && b.state === "failed" ? b.problem : "";
  const at = hover ?? (data ? data.columns[1]?.findLastIndex((v) => v !== null) : undefined);
  return (
    <figure class="chart small">
      <div class="plotbox">
        <Marks marks={marks} events={events} data={axis} names={names} now={managerNow(store.state, Date.now())} />
        {data ? (
          <Plot testid={testid} label={`${title} of canary and control`} lines={data.lines} columns={data.columns} from={range.start} to={range.end} log={format === seconds && needsLog(extent(data.columns.slice(1)))} atLeast={atLeast} format={format} height={120} withTimes marks={marks} onHover={setHover} onZoom={nothing} onReset={nothing} />
        ) : (
          <p class="waiting">{failed ? `Cannot be read: ${failed}.` : "Reading the evidence…"}</p>
        )}
      </div>
      <figcaption>
        <table>
          <caption>{title}</caption>
          <tbody>
            {(data?.lines ?? []).map((l, i) => {
              const v = at === undefined ? null : data?.columns[i + 1]?.[at];
              return <tr key={l.label}><th scope="row"><span class={`swatch swatch-${l.stroke}`} aria-hidden="true" />{l.label}</th><td>{v === null || v === undefined ? NONE : format(v)}</td></tr>;
            })}
          </tbody>
        </table>
      </figcaption>
    </figure>
  );
}

/** What the hours before the rollout told, and whether it counted. */
function HistoryLine({ h }: { h: History }) {
  const from = parseTime(h.from);
  const to = parseTime(h.to);
  const hours = from !== undefined && to !== undefined ? span(to - from) : "hours";
  const query = { query: h.query, start: String((from ?? 0) / 1000 + h.spell_seconds), end: String((to ?? 0) / 1000), step: String(h.spell_seconds) };
  return (
    <p class="aside" data-testid="history">
      {h.used
        ? <>The {hours} before: {share(h.sum)} failed, {ratio(h.worst)} in the worst of {plural(h.spells, "spell")} of {seconds(h.spell_seconds)}. They say what is usual, and so which test finds a worse canary. </>
        : <>The {hours} before did not count: {h.note}. </>}
      <a href={`/prometheus/api/v1/query_range?${new URLSearchParams(query)}`} target="_blank" rel="noopener" title={h.query}>query</a>
    </p>
  );
}

const nothing = (): void => undefined;

/** How often the test at a milestone fails equally good canaries, and finds worse ones. */
const exactWords = (x: ExactTest): string =>
  `Of equally good canaries it fails ${ratio(x.alpha)}, at most ${ratio(x.ceiling)} whatever happens to both sides${x.power ? `; of those with 2 points more errors than the usual ${ratio(x.usual ?? 0)} it finds ${ratio(x.power)}` : ""}.`;

/** Comparisons shown at first; failing ones are always. */
const FIRST = 8;

function Comparisons({ list, at, open }: { list: readonly Comparison[]; at: string; open: boolean }) {
  const time = Date.parse(at) / 1000;
  const [all, setAll] = useState(false);
  const sorted = useMemo(() => byBadness(list), [list]);
  const shown = all ? sorted : sorted.slice(0, Math.max(FIRST, sorted.filter((c) => c.result === "fail").length));
  return (
    <div class="tablebox scroll">
      <table class="rows" data-testid="comparisons">
        <caption class="sr">Comparisons of canary and control</caption>
        <thead><tr><th scope="col">Compared</th><th scope="col">Result</th><th scope="col" class="num">Canary</th><th scope="col" class="num">Control</th><th scope="col" class="num" title="How strongly the numbers speak against the canary; it fails when this exceeds what is needed">Evidence</th><th scope="col" class="num" title="With the budget's certainty the canary is worse by at most so many points">Worse by at most</th><th scope="col">Query</th></tr></thead>
        <tbody>
          {shown.map((c) => (
            <tr key={`${c.what} ${c.endpoint ?? ""}`}>
              <td class="wrap">{question(c)}<br /><span class="aside">{c.endpoint || "all traffic"}{c.note ? `; ${c.note}` : ""}{c.exact && <><br />{exactWords(c.exact)}</>}</span></td>
              <td data-label="Result"><VerdictMark result={c.result} open={open} /></td>
              <td class="num" data-label="Canary">{share(c.canary)}</td>
              <td class="num" data-label="Control">{share(c.control)}</td>
              <td class="num" data-label="Evidence">{evalue(c.evidence)} <span class="aside">of {evalue(c.needed)}</span></td>
              <td class="num" data-label="Worse by at most">{c.upper ? ratio(c.upper) : NONE}</td>
              <td data-label="Query"><a href={`/prometheus/api/v1/query?${new URLSearchParams({ query: c.canary_query, time: String(time) })}`} target="_blank" rel="noopener" title={c.canary_query}>canary</a>{" · "}<a href={`/prometheus/api/v1/query?${new URLSearchParams({ query: c.control_query, time: String(time) })}`} target="_blank" rel="noopener" title={c.control_query}>control</a></td>
            </tr>
          ))}
        </tbody>
      </table>
      {sorted.length > shown.length && <p class="none"><button type="button" class="linkish" onClick={() => setAll(true)}>{plural(sorted.length - shown.length, "comparison")} with weaker evidence</button></p>}
    </div>
  );
}

const cores = (v: number): string => `${sig3(v)} cores`;

/** What answering costs the nodes of each side. */
function SaturationTable({ list, at, open }: { list: readonly Saturation[]; at: string; open: boolean }) {
  const asked = (query: string, time: string): string => `/prometheus/api/v1/query?${new URLSearchParams({ query, time: String(Date.parse(time) / 1000) })}`;
  return (
    <div class="tablebox scroll">
      <table class="rows" data-testid="saturation">
        <caption class="sr">CPU and memory of canary and control</caption>
        <thead><tr><th scope="col">Of one node</th><th scope="col">Result</th><th scope="col" class="num" title="The least of the last 30 s">Canary</th><th scope="col" class="num" title="The most of the same time, or of the minutes before the step">Control</th><th scope="col" class="num">Too much above</th><th scope="col">Query</th></tr></thead>
        <tbody>
          {list.map((c) => {
            const format = c.what === "memory" ? bytes : cores;
            return (
              <tr key={c.what}>
                <td>{c.what === "cpu" ? "CPU" : c.what === "memory" ? "Memory" : c.what}</td>
                <td data-label="Result"><VerdictMark result={c.result} open={open} /></td>
                <td class="num" data-label="Canary">{format(c.canary)}</td>
                <td class="num" data-label="Control">{format(c.control)}</td>
                <td class="num" data-label="Too much above">{format(c.limit)}</td>
                <td data-label="Query"><a href={asked(c.canary_query, at)} target="_blank" rel="noopener" title={c.canary_query}>canary</a>{" · "}<a href={asked(c.control_query, c.control_at)} target="_blank" rel="noopener" title={c.control_query}>control</a></td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Report({ report, now }: { report: RolloutReport; now: number }) {
  const lines = [report.all, ...(report.endpoints ?? [])];
  return (
    <section aria-labelledby="report-title" data-testid="report">
      <header class="bar">
        <h2 id="report-title">Before and after</h2>
        <span class="aside"><Time at={parseTime(report.before_from)} now={now} /> – <Time at={parseTime(report.before_to)} now={now} /> against <Time at={parseTime(report.after_from)} now={now} /> – <Time at={parseTime(report.after_to)} now={now} /></span>
      </header>
      {report.note && <p class="note">{report.note}</p>}
      <div class="tablebox scroll">
        <table class="rows">
          <caption class="sr">The group before and after the rollout</caption>
          <thead><tr><th scope="col">Endpoint</th><th scope="col" class="num">Requests</th><th scope="col" class="num">Errors before</th><th scope="col" class="num">after</th><th scope="col" class="num">4xx before</th><th scope="col" class="num">after</th><th scope="col" class="num">p50 before</th><th scope="col" class="num">after</th><th scope="col" class="num">p99 before</th><th scope="col" class="num">after</th></tr></thead>
          <tbody>
            {lines.map((l, i) => (
              <tr key={l.endpoint || i}>
                <td>{l.endpoint ? <code>{l.endpoint}</code> : "all traffic"}</td>
                <td class="num" data-label="Requests">{exact(l.after.requests)}</td>
                <td class="num" data-label="Errors before">{ratio(l.before.error_ratio)}</td>
                <td class="num" data-label="after">{ratio(l.after.error_ratio)}</td>
                <td class="num" data-label="4xx before">{exact(l.before.client_errors)}</td>
                <td class="num" data-label="after">{exact(l.after.client_errors)}</td>
                <td class="num" data-label="p50 before">{seconds(l.before.p50)}</td>
                <td class="num" data-label="after">{seconds(l.after.p50)}</td>
                <td class="num" data-label="p99 before">{seconds(l.before.p99)}</td>
                <td class="num" data-label="after">{seconds(l.after.p99)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
