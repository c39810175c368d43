// What the visitor may do: what a role may not do is not offered. The manager
// decides again on each call; this only spares the reader a refusal.

import type { Me } from "./api";
import type { Page } from "./routes";

const RANK = { nobody: 0, viewer: 1, operator: 2, admin: 3 } as const;
export type Role = keyof typeof RANK;

/** Reports whether the visitor has the role, or the single right where one is named. */
export function may(me: Me | undefined, role: Role, right = ""): boolean {
  if (!me) return false;
  return (RANK[me.role] ?? 0) >= RANK[role] || (right !== "" && (me.rights ?? []).includes(right));
}

/** What the views need beyond looking at the fleet, as the manager's table of routes has it. */
const NEEDS: Partial<Record<Page, { role: Role; right?: string }>> = {
  config: { role: "operator" },
  group: { role: "operator" },
  upload: { role: "operator" },
  diff: { role: "operator" },
  rollout: { role: "operator" },
  traces: { role: "operator", right: "traces:read" },
  trace: { role: "operator", right: "traces:read" },
  tokens: { role: "admin" },
};

/** The role that a view asks for where the visitor lacks it; undefined when it may be shown. */
export function lacks(me: Me | undefined, page: Page): Role | undefined {
  const need = NEEDS[page];
  return !need || may(me, need.role, need.right) ? undefined : need.role;
}

/** Whether nobody is logged in. */
export const anonymous = (me: Me | undefined): boolean => !me || me.name === "" || me.name === "anonymous";
