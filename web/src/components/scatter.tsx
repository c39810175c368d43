// Traces as points: when they began, how long they took, whether they failed.

import { clock, plural, seconds } from "../format";
import { extent, logTicks, needsLog } from "../series";
import type { TraceView } from "../trace";
import { traceHref } from "../routes";

/** The drawing's own units; it is stretched to the width there is. */
const BOX = { w: 1000, h: 150 };

export function Scatter({ traces }: { traces: readonly TraceView[] }) {
  const starts = traces.map((t) => t.start);
  const [from, to] = [Math.min(...starts), Math.max(...starts)];
  const e = extent([traces.map((t) => t.duration / 1e6)]) ?? { min: 0.001, max: 1 };
  const log = needsLog(e);
  const [low, high] = log ? [e.min / 1.3, e.max * 1.3] : [0, e.max * 1.1];
  const x = (t: number): number => (to > from ? (100 * (t - from)) / (to - from) : 50);
  const y = (s: number): number => 100 * (1 - (log ? Math.log(Math.max(s, low) / low) / Math.log(high / low) : s / high));
  const ticks = log ? logTicks(low, high, 5) : [0, high / 2, high * 0.95];
  return (
    <figure class="scatter panel" aria-label={`${plural(traces.length, "trace")} by begin and duration`} data-testid="scatter">
      <div class="field" style={{ height: `${BOX.h}px` }}>
        {ticks.map((t) => <span key={t} class="tickline" style={{ top: `${y(t)}%` }} aria-hidden="true"><span>{seconds(t)}</span></span>)}
        {traces.map((t) => (
          <a
            key={t.id} class={t.errors > 0 ? "point point-failed" : "point"} href={traceHref(t.id)} style={{ left: `${x(t.start)}%`, top: `${y(t.duration / 1e6)}%` }}
            title={`${t.name}\n${clock(t.start / 1000, true)}, ${seconds(t.duration / 1e6)}${t.errors > 0 ? ", failed" : ""}`} aria-label={`${t.name}, ${seconds(t.duration / 1e6)}${t.errors > 0 ? ", failed" : ""}`}
          />
        ))}
      </div>
      <figcaption><span>{clock(from / 1000, true)}</span><span class="aside">{traces.some((t) => t.errors > 0) ? "squares failed" : "none failed"}</span><span>{clock(to / 1000, true)}</span></figcaption>
    </figure>
  );
}
