// A rollout as a path of steps from left to right, each with its nodes as dots.

import type { Rollout, RolloutState, RolloutStep, VerdictResult } from "../api";
import { exact, plural } from "../format";
import type { Tone } from "../health";
import { dotsOf, type Dot, type DotState, stepSize, stepWords, underWay, VERDICT_WORDS } from "../rollouts";
import { nodeHref } from "../routes";
import { Shape } from "./marks";

const TONES: Record<RolloutState, Tone | "good" | "gone"> = { queued: "gone", running: "info", paused: "warn", rolling_back: "bad", completed: "good", failed: "bad", aborted: "gone", superseded: "gone" };

/** A rollout's state: a shape and the word. */
export function RolloutMark({ r }: { r: Rollout }) {
  const asks = r.state === "running" && r.steps?.[r.step ?? 0]?.state === "asking";
  const tone = asks ? "warn" : (TONES[r.state] ?? "gone");
  return (
    <span class={`state state-${tone}`} title={r.reason}>
      <Shape tone={tone} />
      {asks ? "asks you" : r.state.replaceAll("_", " ")}
    </span>
  );
}

/** "5 of 12", with those that refused. */
export function RolloutProgress({ r }: { r: Rollout }) {
  const confirmed = r.confirmed?.length ?? 0;
  const refused = Object.keys(r.refused ?? {}).length;
  const pending = r.pending?.length ?? 0;
  return (
    <span>
      {exact(confirmed)} confirmed
      {pending > 0 && `, ${exact(pending)} pending`}
      {refused > 0 && <span class="tone-bad">, {exact(refused)} refused</span>}
    </span>
  );
}

const RESULT_TONES: Record<VerdictResult, Tone | "good"> = { pass: "good", fail: "bad", inconclusive: "warn" };

/** A verdict. While a step is still watched an inconclusive one is no trouble: open says so. */
export function VerdictMark({ result, open = false }: { result: VerdictResult; open?: boolean }) {
  const tone = open && result === "inconclusive" ? "info" : RESULT_TONES[result];
  return (
    <span class={`state state-${tone}`}>
      <Shape tone={tone} />
      {VERDICT_WORDS[result]}{open && result !== "fail" && " so far"}
    </span>
  );
}

const DOT_WORDS: Record<DotState, string> = { confirmed: "confirmed", pending: "pending", refused: "refused", waiting: "waiting", returned: "back on the old revision" };

/** More dots than this are a number. */
const MOST_DOTS = 120;

export function Dots({ dots, nameOf }: { dots: readonly Dot[]; nameOf: (id: string) => string }) {
  if (dots.length === 0) return <p class="silent">no nodes yet</p>;
  const counts = Object.entries(DOT_WORDS).map(([s, w]) => [dots.filter((d) => d.state === s).length, w] as const).filter(([n]) => n > 0);
  return (
    <div class="dotbox">
      <ul class="dots" aria-label="Nodes">
        {dots.slice(0, MOST_DOTS).map((d) => (
          <li key={d.node}>
            <a class={`nodedot nodedot-${d.state}`} href={nodeHref(d.node)} title={`${nameOf(d.node)}: ${DOT_WORDS[d.state]}${d.reason ? `, ${d.reason}` : ""}`} aria-label={`${nameOf(d.node)}: ${DOT_WORDS[d.state]}`} />
          </li>
        ))}
        {dots.length > MOST_DOTS && <li class="aside">and {exact(dots.length - MOST_DOTS)} more</li>}
      </ul>
      <p class="aside">{counts.map(([n, w]) => `${exact(n)} ${w}`).join(", ")}</p>
    </div>
  );
}

/** The path. hrefOf leads to a step's evidence; shown is the step whose evidence stands below. */
export function StepPath({ r, now, nameOf, shown, hrefOf }: { r: Rollout; now: number; nameOf: (id: string) => string; shown: number; hrefOf: (i: number) => string }) {
  const steps = r.steps ?? [];
  if (steps.length === 0) {
    return (
      <ol class="path">
        <li class={`step step-${r.state === "completed" ? "passed" : r.state === "failed" ? "failed" : underWay(r.state) ? "rolling" : "waiting"}`} aria-current={underWay(r.state) ? "step" : undefined}>
          <p class="stepname">{r.strategy === "restart" ? "One after the other" : "All at once"}</p>
          <p class="stepwords">{r.strategy === "restart" ? "each drains, restarts and is ready before the next" : "no gate: nobody compares"}</p>
          <Dots dots={dotsOf(r)} nameOf={nameOf} />
        </li>
      </ol>
    );
  }
  return (
    <ol class="path" data-testid="path">
      {steps.map((s, i) => (
        <li key={i} class={`step step-${s.state}${i === shown ? " step-shown" : ""}`} aria-current={underWay(r.state) && i === (r.step ?? 0) ? "step" : undefined} data-testid={`step-${i}`}>
          <p class="stepname">
            <StepShape s={s} />
            {i === steps.length - 1 ? "all nodes" : stepSize(s)}
          </p>
          <p class="stepwords">{stepWords(s, now)}</p>
          {(s.added?.length ?? 0) > 0 && <Dots dots={dotsOf(r, s)} nameOf={nameOf} />}
          {s.verdict && (
            <p class="stepverdict">
              <a href={hrefOf(i)} aria-current={i === shown ? "true" : undefined}><VerdictMark result={s.verdict.result} open={isOpen(s)} /></a>
              <span class="aside">{plural(s.verdict.looks, "look")}</span>
            </p>
          )}
        </li>
      ))}
    </ol>
  );
}

/** The step is still watched: its verdict may change. */
export const isOpen = (s: RolloutStep): boolean => s.state === "baking" || s.state === "rolling";

function StepShape({ s }: { s: RolloutStep }) {
  const tone = ({ waiting: "gone", rolling: "info", baking: "info", asking: "warn", passed: "good", failed: "bad" } as const)[s.state] ?? "gone";
  return <Shape tone={tone} />;
}
