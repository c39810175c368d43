// What is wrong, where and since when: pure functions from the overview to the
// sentence at the top of the page and to the list of what needs attention.

import type { Activity, ActivityRow, Backend, Node, Overview, RolloutState } from "./api";
import { and, exact, parseTime, plural, ratio, roughly, span, when } from "./format";
import { backendHref, nodeHref, rolloutHref } from "./routes";

/** bad needs a person now, warn soon; info is going on. */
export type Tone = "bad" | "warn" | "info";

/** One line of "Needs attention". */
export interface Item {
  /** The same trouble keeps its key from one overview to the next. */
  key: string;
  tone: Tone;
  /** Whom it is about, set apart in the text. */
  subject: string;
  /** What is wrong, so that subject and text read as one sentence. */
  text: string;
  /** The same for the sentence, where text holds a number that moves. */
  brief?: string;
  href: string;
  /** When it began (Unix milliseconds), where that is known. */
  since?: number;
  /** It began then at the latest: nothing older is known. */
  longer?: boolean;
}

/** Fewer requests than this say nothing: thin traffic is not good health, nor bad. */
const MIN_REQUESTS = 20;
/** From these error ratios on, a person should look soon, or now. */
const WARN_RATIO = 0.01;
const BAD_RATIO = 0.1;
/** z of the one-sided 95 % bound. */
const Z = 1.645;
/** A node that runs another revision than desired is news after this long. */
const SLOW_APPLY_MS = 30_000;
/** A node that polls is heard of within this time. */
const HEARD_MS = 60_000;
/** A failed rollout stays among what needs attention this long. */
const FAILED_ROLLOUT_MS = 24 * 3600_000;

/**
 * The lower end of the Wilson score interval: the error ratio that errors of n
 * requests at least prove. 1 of 20 proves little, 100 of 2,000 proves 4 %.
 */
export function wilsonLower(errors: number, n: number): number {
  if (n <= 0) return 0;
  const p = errors / n;
  const z2 = Z * Z;
  const center = p + z2 / (2 * n);
  const margin = Z * Math.sqrt((p * (1 - p)) / n + z2 / (4 * n * n));
  return Math.max(0, (center - margin) / (1 + z2 / n));
}

/** Judges one activity; undefined is fine, or too thin to tell. */
export function level(a: Activity | null): "bad" | "warn" | undefined {
  if (!a) return undefined;
  const n = a.requests - a.limited;
  if (n < MIN_REQUESTS) return undefined;
  const proven = wilsonLower(a.errors, n);
  if (proven >= BAD_RATIO) return "bad";
  return proven >= WARN_RATIO ? "warn" : undefined;
}

/** A node whose lease ended has left the cluster, and serves on. */
export const leaseEnded = (n: Node): boolean => n.state === "left" && (n.conditions ?? []).some((c) => c.kind === "lease_ended");

/** The nodes that matter for "11 of 12 nodes serve": managed, not gone by their own will. */
export function expected(nodes: readonly Node[]): Node[] {
  return nodes.filter((n) => n.managed && (n.state !== "left" || leaseEnded(n)));
}

function serves(n: Node, now: number): boolean {
  if (leaseEnded(n)) return now - (parseTime(n.last_poll) ?? 0) < HEARD_MS;
  return n.state === "alive" || n.state === "suspect";
}

/** Says from where a backend fails: "from all 3 nodes", "from gw-2", "from 5 of 12 nodes". */
export function failsFrom(b: Pick<Backend, "nodes" | "callers">, nameOf: (id: string) => string): string {
  const failing = failingCells(b);
  if (failing.length === 0) return "";
  if (failing.length === b.callers && b.callers > 1) return ` from all ${b.callers} nodes`;
  if (failing.length <= 3) return ` from ${and(failing.map((r) => nameOf(r.node ?? "")).sort())}`;
  return ` from ${failing.length} of ${b.callers} nodes`;
}

/** The nodes that saw errors of a backend; an overview brings no others. */
export const failingCells = (b: Pick<Backend, "nodes">): ActivityRow[] => (b.nodes ?? []).filter((r) => (r.activity?.errors ?? 0) > 0);

/** Adds since only when it is known. */
function item(base: Omit<Item, "since">, since: number | undefined): Item {
  return since === undefined ? base : { ...base, since };
}

function nodeItems(n: Node, o: Overview, now: number): Item[] {
  const href = nodeHref(n.id);
  const cause = n.state_cause ? `: ${n.state_cause}` : "";
  const since = parseTime(n.state_since);
  const items: Item[] = [];
  const add = (what: string, tone: Tone, text: string, at: number | undefined): void => {
    items.push(item({ key: `node/${n.id}/${what}`, tone, subject: n.name || n.id, text, href }, at));
  };
  // What is not enrolled has no polls to miss: it is silent, which may be meant.
  if (!n.managed && n.state !== "alive") add("state", "warn", "is unmanaged and sends nothing", since);
  else switch (n.state) {
    case "down":
      add("state", "bad", `is down${cause}`, since);
      break;
    case "unreachable":
      add("state", "bad", `does not answer${cause}`, since);
      break;
    case "suspect":
      add("state", "warn", `is suspected to be gone${cause}`, since);
      break;
  }
  for (const c of n.conditions ?? []) {
    if (c.kind === "drifted") continue; // said below, with what the node answered
    const [tone, words] = CONDITIONS[c.kind] ?? (["warn", c.kind.replaceAll("_", " ")] as const);
    add(c.kind, tone, c.cause ? `${words}: ${c.cause}` : words, parseTime(c.since));
  }
  const { desired, attempted, applied } = n.ledger ?? { desired: null, attempted: null, applied: null };
  if (n.state === "alive" && desired && desired.sha256 !== applied?.sha256) {
    if (attempted?.error && attempted.sha256 === desired.sha256) {
      add("revision", "bad", `refused revision ${desired.number}: ${attempted.error}`, parseTime(attempted.time));
    } else if (now - (parseTime(desired.time) ?? now) > SLOW_APPLY_MS) {
      const has = applied ? `revision ${applied.number}` : "its own file";
      add("revision", "warn", `still runs ${has}; revision ${desired.number} is wanted`, parseTime(desired.time));
    }
  }
  // Errors that all nodes share are a backend's or a client's doing and shown
  // there; a node is named when it stands out from its cluster.
  const l = level(n.activity);
  const own = n.activity?.error_ratio ?? 0;
  const all = o.cluster.activity?.error_ratio ?? 0;
  if (l && own > 2 * all) add("errors", l, `answers ${ratio(own)} with errors`, undefined);
  return items;
}

/** What each condition of a node means to a reader, with its tone. */
const CONDITIONS: Record<string, readonly [Tone, string]> = {
  draining: ["info", "is draining"],
  flapping: ["warn", "comes and goes"],
  gossip_conflict: ["bad", "shares its identity with another process"],
  udp_blocked: ["warn", "gets no UDP gossip"],
  lease_ended: ["bad", "has no valid lease and runs at the fallback rate"],
  over_seats: ["bad", "is over the license's seats"],
};

function backendItem(b: Backend, nameOf: (id: string) => string): Item[] {
  const l = level(b.activity);
  if (!l || !b.activity) return [];
  const from = failsFrom(b, nameOf);
  const text = `fails ${ratio(b.activity.error_ratio)} of calls${from}`;
  const brief = `fails ${roughly(b.activity.error_ratio ?? 0)} of calls${from}`;
  return [{ key: `backend/${b.id}`, tone: l, subject: b.id, text, brief, href: backendHref(b.id) }];
}

/** The states of a rollout that is under way, as a sentence says them. */
export const UNDER_WAY: Partial<Record<RolloutState, string>> = { queued: "is queued", running: "is running", paused: "is paused", rolling_back: "failed and is rolling back" };

function rolloutItems(o: Overview, now: number): Item[] {
  return (o.cluster.rollouts ?? []).flatMap((r): Item[] => {
    const subject = r.strategy === "restart" ? `Restart of ${r.group}` : `Rollout of revision ${r.to} to ${r.group}`;
    const key = `rollout/${r.id}`;
    const href = rolloutHref(r.id);
    const refused = Object.keys(r.refused ?? {}).length;
    const since = parseTime(r.ended) ?? parseTime(r.started);
    const reason = r.reason ? `: ${r.reason}` : "";
    const words = UNDER_WAY[r.state];
    if (words) {
      const step = r.steps?.[r.step ?? 0];
      // A gate that lacks evidence holds until more comes, or a person decides.
      const asks = r.state === "running" && step?.state === "asking";
      const tone = r.state === "rolling_back" ? "bad" : refused > 0 || asks || r.state === "paused" ? "warn" : "info";
      const at = r.steps?.length ? `, step ${(r.step ?? 0) + 1} of ${r.steps.length}` : "";
      const confirmed = r.confirmed?.length ?? 0;
      const all = confirmed + refused + (r.pending?.length ?? 0);
      const no = refused > 0 ? `, ${exact(refused)} refused` : "";
      const text = asks ? `holds${at} and asks you${step.verdict ? `: ${step.verdict.reason}` : reason}` : `${words}${at}: ${exact(confirmed)} of ${plural(all, "node")} confirmed${no}${reason}`;
      return [item({ key, tone, subject, text, href }, parseTime(r.started))];
    }
    if (r.state === "failed" && now - (since ?? now) < FAILED_ROLLOUT_MS) {
      return [item({ key, tone: "bad", subject, text: `failed${reason}`, href }, since)];
    }
    return [];
  });
}

function licenseItems(o: Overview, now: number): Item[] {
  const l = o.cluster.license;
  const expires = parseTime(l.expires);
  const at = expires === undefined ? "" : ` at ${when(expires, now)}`;
  const make = (tone: Tone, text: string): Item[] => [{ key: `license/${l.state}`, tone, subject: "License", text, href: "/license" }];
  switch (l.state) {
    case "expired":
      return make("bad", `${l.plan} expired${at}`);
    case "missing":
      return make("bad", "is missing");
    case "warning":
      return make("warn", `${l.plan} expires${at}`);
  }
  if (l.seats > 0 && l.seats_used >= l.seats) {
    return [{ key: "license/seats", tone: "warn", subject: "License", text: `has all ${plural(l.seats, "seat")} taken: another node would be refused`, href: "/license" }];
  }
  return [];
}

const RANK: Record<Tone, number> = { bad: 0, warn: 1, info: 2 };

/** Everything that needs a person, worst first, and within a tone oldest first. */
export function attention(o: Overview, now: number): Item[] {
  const nodes = o.nodes ?? [];
  const names = new Map(nodes.map((n) => [n.id, n.name || n.id]));
  const nameOf = (id: string): string => names.get(id) ?? id;
  return [
    ...nodes.flatMap((n) => nodeItems(n, o, now)),
    ...(o.backends ?? []).flatMap((b) => backendItem(b, nameOf)),
    ...rolloutItems(o, now),
    ...licenseItems(o, now),
  ].sort((a, b) => RANK[a.tone] - RANK[b.tone] || (a.since ?? Infinity) - (b.since ?? Infinity) || (a.key < b.key ? -1 : 1));
}

/**
 * Fills since for troubles that began while this page was watching: seen maps
 * key to the time of first sight. With fresh set (the first overview, or the
 * first after a break) nothing is known of when they began, and they are noted
 * as undefined. seen is replaced, not changed.
 */
export function trackSince(
  seen: ReadonlyMap<string, number | undefined>,
  items: readonly Item[],
  now: number,
  fresh: boolean,
): { items: Item[]; seen: Map<string, number | undefined> } {
  const next = new Map<string, number | undefined>();
  const dated = items.map((it) => {
    const first = seen.has(it.key) ? seen.get(it.key) : fresh ? undefined : now;
    next.set(it.key, first);
    return it.since === undefined ? item(it, first) : it;
  });
  return { items: dated, seen: next };
}

/** A piece of the sentence: text, or a link with a tone. */
export interface Part {
  text: string;
  href?: string;
  tone?: Tone;
}

/** "since 02:41", or "for over 23 h" where the beginning is older than what is known. */
export const sinceWords = (i: Pick<Item, "longer">, since: number, now: number): string => (i.longer ? `for over ${span(now - since)}` : `since ${when(since, now)}`);

/** Names at most this many troubles in the sentence; the list has the rest. */
const IN_SENTENCE = 2;

/**
 * The sentence a tired person reads first: how many serve, what fails, since
 * when; and when nothing does, that nothing needs attention. It holds no number
 * that moves while the fleet is calm.
 */
export function sentence(o: Overview, items: readonly Item[], now: number): Part[] {
  const nodes = o.nodes ?? [];
  const want = expected(nodes);
  const serving = want.filter((n) => serves(n, now)).length;
  const parts: Part[] = [];
  if (want.length === 0 && o.cluster.unmanaged > 0) {
    parts.push({ text: `${plural(o.cluster.unmanaged, "unmanaged gateway reports", "unmanaged gateways report")}; no node is managed.` });
  } else if (want.length === 0) {
    parts.push({ text: "No node serves." });
  } else if (serving === want.length) {
    parts.push({ text: want.length === 1 ? "The one node serves." : `All ${exact(want.length)} nodes serve.` });
  } else {
    parts.push({ text: `${exact(serving)} of ${plural(want.length, "node")}`, tone: "bad", href: "/nodes" }, { text: " serve." });
  }
  const real = items.filter((i) => i.tone !== "info");
  // Many nodes in trouble are one piece of news.
  const gone = real.filter((i) => i.tone === "bad" && i.key.startsWith("node/") && i.key.endsWith("/state"));
  const rest = gone.length > 1 ? real.filter((i) => !gone.includes(i)) : real;
  if (gone.length > 1) {
    const first = Math.min(...gone.map((i) => i.since ?? Infinity));
    parts.push({ text: ` ${exact(gone.length)} do not answer${Number.isFinite(first) ? `, the first since ${when(first, now)}` : ""}.` });
  }
  const named = rest.slice(0, IN_SENTENCE);
  for (const i of named) {
    const kind = i.key.startsWith("backend/") ? "Backend " : i.key.startsWith("node/") ? "Node " : "";
    const since = i.since === undefined ? "" : ` ${sinceWords(i, i.since, now)}`;
    parts.push({ text: ` ${kind}` }, { text: i.subject, tone: i.tone, href: i.href }, { text: ` ${i.brief ?? i.text}${since}.` });
  }
  const more = rest.length - named.length;
  if (more > 0) parts.push({ text: ` ${plural(more, "more thing needs", "more things need")} attention.` });
  if (real.length === 0) parts.push({ text: " Nothing needs attention." });
  return parts;
}
