// Small marks that say how something is: always a shape and a word, never a
// color alone.

import type { NodeState } from "../api";
import { hoverTime, NONE, when } from "../format";
import type { Tone } from "../health";

const NODE_TONES: Record<NodeState, Tone | "good" | "gone"> = { alive: "good", suspect: "warn", unreachable: "bad", down: "bad", left: "gone" };

/** A node's state: a dot for alive, a ring for left, a triangle or square for trouble, and the word. */
export function StateMark({ state, why, title }: { state: NodeState; why?: string | undefined; title?: string | undefined }) {
  const tone = NODE_TONES[state] ?? "gone";
  return (
    <span class={`state state-${tone}`} title={title}>
      <Shape tone={tone} />
      {state}{why && ` (${why})`}
    </span>
  );
}

/** The shape of a tone; decoration beside a word. */
export function Shape({ tone }: { tone: Tone | "good" | "gone" }) {
  return (
    <svg class={`shape shape-${tone}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {tone === "good" && <circle cx="6" cy="6" r="3.2" />}
      {tone === "info" && <circle cx="6" cy="6" r="3.4" fill="none" stroke-width="1.8" />}
      {tone === "gone" && <circle cx="6" cy="6" r="3.4" fill="none" stroke-width="1.4" stroke-dasharray="2 1.6" />}
      {tone === "warn" && <path d="M6 1.2 11.4 10.8H.6z" />}
      {tone === "bad" && <rect x="1.4" y="1.4" width="9.2" height="9.2" rx="1" />}
    </svg>
  );
}

const WORDS: Record<Tone, string> = { bad: "failing", warn: "warning", info: "going on" };

/** The word of a tone, for those who do not see the shape. */
export const toneWord = (tone: Tone): string => WORDS[tone];

/** A time, local, with UTC and age on hover; exact shows today's seconds. */
export function Time({ at, now, exact = false }: { at: number | undefined; now: number; exact?: boolean }) {
  if (at === undefined) return <span>{NONE}</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={hoverTime(at, now)}>
      {when(at, now, exact)}
    </time>
  );
}
