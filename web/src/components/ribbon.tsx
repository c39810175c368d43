// A node's states over time as one thin strip.

import type { NodeState } from "../api";
import { clock, ratio, span, when } from "../format";
import { aliveShare, LOOK_MS, type Stretch } from "../membership";

/** Gone by its own will, or doubted: these are not the node's failure. */
const CLASSES: Record<NodeState, string> = { alive: "alive", suspect: "warn", unreachable: "bad", down: "bad", left: "gone" };

export function Ribbon({ list, now }: { list: readonly Stretch[]; now: number }) {
  const first = list[0];
  if (!first) return null;
  const all = Math.max(1, now - first.from);
  const share = aliveShare(list);
  const away = list.filter((s) => s.state !== "alive" && s.state !== "suspect");
  const words = `${share === undefined ? "" : `Alive ${share === 1 ? "all of" : `${ratio(share)} of`} the ${now - first.from >= LOOK_MS - 60_000 ? "last 24 h" : `${span(now - first.from)} that are known`}`}${away.length > 0 ? `; away ${away.length === 1 ? "once" : `${away.length} times`}, ${span(away.reduce((n, s) => n + s.to - s.from, 0))} in all` : ""}.`;
  return (
    <figure class="ribbonbox">
      <div class="ribbon" role="img" aria-label={words} data-testid="ribbon">
        {list.map((s) => (
          <span key={s.from} class={`stretch stretch-${s.state ? CLASSES[s.state] : "unknown"}`} style={{ left: `${(100 * (s.from - first.from)) / all}%`, width: `${(100 * (s.to - s.from)) / all}%` }} title={`${s.state ?? "unknown"} ${clock(s.from, true)} – ${clock(s.to, true)} (${span(s.to - s.from)})`} />
        ))}
      </div>
      <figcaption><span>{when(first.from, now)}</span><span>{words}</span><span>now</span></figcaption>
    </figure>
  );
}
