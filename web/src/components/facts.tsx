// Names and values of one thing.

import type { ComponentChildren } from "preact";
import type { Activity } from "../api";
import { exact, NONE, rate, ratio, seconds, windowName } from "../format";

export function Facts({ children }: { children: ComponentChildren }) {
  return <dl class="facts">{children}</dl>;
}

export function Fact({ name, children, testid }: { name: string; children: ComponentChildren; testid?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd data-testid={testid}>{children}</dd>
    </div>
  );
}

export function ActivityFacts({ a, calls = false }: { a: Activity | null; calls?: boolean }) {
  if (!a) return <p class="silent">No data yet.</p>;
  return (
    <Facts>
      <Fact name={`${calls ? "Calls" : "Requests"}, ${windowName(a.window)}`}>{rate(a.requests_per_second)}</Fact>
      <Fact name="Error ratio">{ratio(a.error_ratio)}</Fact>
      <Fact name="Errors">{exact(a.errors)}</Fact>
      <Fact name="4xx">{exact(a.client_errors)}</Fact>
      <Fact name="p50 · p95 · p99">{a.latency ? `${seconds(a.latency.p50)} · ${seconds(a.latency.p95)} · ${seconds(a.latency.p99)}` : NONE}</Fact>
      <Fact name="Total">{exact(a.requests_total)}</Fact>
    </Facts>
  );
}

/** Says that a thing is not, or no longer, there. */
export function Gone({ what, id, loading, href, all }: { what: string; id: string; loading: boolean; href: string; all: string }) {
  return loading ? (
    <p class="waiting">Waiting for the manager's first answer…</p>
  ) : (
    <section class="gone">
      <h1>There is no {what} {id}</h1>
      <p>It may have been forgotten, or was never there. <a href={href}>{all}</a></p>
    </section>
  );
}
