// The license: what it allows, what is used, when it ends, and for admins the
// place to install another.

import { useState } from "preact/hooks";
import { may } from "../access";
import { installLicense } from "../actions";
import type { License } from "../api";
import { Act, Pending, Progress } from "../components/act";
import { Fact, Facts } from "../components/facts";
import { Shape, Time } from "../components/marks";
import { exact, NONE, parseTime, plural, rate, span } from "../format";
import { licensePath } from "../resources";
import { managerNow, type Store, useData, useStore } from "../store";
import { EventList } from "./events";

const TONES = { valid: "good", warning: "warn", expired: "bad", missing: "bad" } as const;

export function LicensePage({ store }: { store: Store }) {
  const got = useData(store, licensePath);
  const me = useStore(store, (s) => s.me);
  const l = got.body;
  return (
    <>
      <section aria-labelledby="title">
        <header class="bar">
          <h1 id="title">License</h1>
          {l && <span class={`state state-${TONES[l.state]}`} data-testid="license-state"><Shape tone={TONES[l.state]} />{l.state}</span>}
        </header>
        <Pending what="The license" state={got.state} problem={got.problem} has={l !== undefined}>{l && <About store={store} l={l} />}</Pending>
      </section>
      {may(me, "admin") && <Install store={store} />}
      <section aria-labelledby="events-title">
        <header class="bar"><h2 id="events-title">Its events</h2></header>
        <EventList store={store} keep={(e) => e.kind.startsWith("license.")} />
      </section>
    </>
  );
}

function About({ store, l }: { store: Store; l: License }) {
  const now = managerNow(store.state, Date.now());
  const expires = parseTime(l.expires);
  const full = l.seats > 0 && l.seats_used >= l.seats;
  const leases = l.leases ?? {};
  return (
    <>
      {l.problem && <p class="problem">{l.problem}</p>}
      <Facts>
        <Fact name="Plan">{l.plan || NONE}</Fact>
        <Fact name="Seats"><span class={full ? "tone-warn" : undefined} data-testid="seats">{l.seats === 0 ? `${exact(l.seats_used)} used, no limit` : `${exact(l.seats_used)} of ${exact(l.seats)}`}</span></Fact>
        <Fact name="Ends">{expires === undefined ? "never" : <><Time at={expires} now={now} /> <span class={expires < now ? "tone-bad" : "aside"}>{expires < now ? `${span(now - expires)} ago` : `in ${span(expires - now)}`}</span></>}</Fact>
        <Fact name="Grace after that">{l.grace > 0 ? span(l.grace * 1000) : "none"}</Fact>
        <Fact name="Leases"><span class={leases.fallen ? "tone-bad" : leases.warning ? "tone-warn" : undefined} data-testid="leases">{`${exact(leases.valid ?? 0)} valid, ${exact(leases.warning ?? 0)} warning, ${exact(leases.fallen ?? 0)} fallen`}</span></Fact>
        <Fact name="A node without a manager">{`a full member for ${span(l.lease_life * 1000)}`}</Fact>
        <Fact name="Then, per node">{l.fallback_rate === null ? "no limit" : `at most ${rate(l.fallback_rate)}`}</Fact>
        <Fact name="Customer">{l.customer || NONE}</Fact>
        <Fact name="Features">{l.features?.length ? l.features.join(", ") : NONE}</Fact>
        <Fact name="Issuer">{l.issuer || NONE}</Fact>
        <Fact name="Id">{l.id ? <code>{l.id}</code> : NONE}</Fact>
      </Facts>
      {l.seats > 0 && <progress class={full ? "seats full" : "seats"} max={l.seats} value={Math.min(l.seats, l.seats_used)} aria-label="Seats used" />}
      {l.over_seats ? <p class="note">{`${plural(l.over_seats, "node is", "nodes are")} over the seats: a lease is kept to its end, and no other is given until a seat is free.`}</p> : null}
      {full && <p class="note">All seats are taken: another node is refused. Forget nodes that are gone for good, or install a larger license.</p>}
      <p class="aside">Whatever the license says, no node stops serving: without a lease it goes on at the rate above.</p>
    </>
  );
}

function Install({ store }: { store: Store }) {
  const [text, setText] = useState("");
  const action = installLicense(text.trim());
  return (
    <section aria-labelledby="install-title">
      <header class="bar"><h2 id="install-title">Install another</h2></header>
      <div class="panel form">
        <label class="field">License
          <textarea class="code" rows={4} spellcheck={false} value={text} onInput={(e) => setText(e.currentTarget.value)} placeholder="eyJ…" data-testid="license-text" />
        </label>
        <div class="actions">
          <div class="row"><Act store={store} action={action} label="Install the license" primary disabled={text.trim() === ""} testid="license-install" effect={<p>It takes the place of the current one at once, on all nodes, when its signature holds. Leases that were given stay valid to their end.</p>} after={(d) => d.state === "done" && setText("")} /></div>
          <Progress store={store} of={action.key} done={() => "Installed."} />
        </div>
      </div>
    </section>
  );
}
