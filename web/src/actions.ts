// What a visitor may set going: calls that change something, and how they go.
// Components describe an Action and read its Doing from the store.

import type { NewRollout } from "./api";
import type { Role } from "./access";
import { type Call, CallError, send } from "./client";
import type { Doing, Store } from "./store";

export interface Action extends Call {
  /** Progress is kept under this key, so that it shows where the action was started. */
  key: string;
  role: Role;
}

const esc = encodeURIComponent;
const post = (key: string, path: string, body?: unknown): Action => ({ key, role: "operator", method: "POST", path, ...(body === undefined ? {} : { body }) });

export const drainNode = (id: string): Action => post(`drain/${id}`, `/v1/nodes/${esc(id)}/drain`);
export const undrainNode = (id: string): Action => post(`drain/${id}`, `/v1/nodes/${esc(id)}/undrain`);
export const restartNode = (id: string): Action => post(`restart/${id}`, `/v1/nodes/${esc(id)}/restart`);
export const forgetNode = (id: string): Action => ({ key: `forget/${id}`, role: "admin", method: "DELETE", path: `/v1/nodes/${esc(id)}` });
export const revokeNode = (id: string): Action => ({ ...post(`forget/${id}`, `/v1/nodes/${esc(id)}/revoke`), role: "admin" });
export const restartGroup = (group: string): Action => post(`restart-group/${group}`, `/v1/groups/${esc(group)}/restart`);
export const rollBack = (group: string): Action => post(`rollback/${group}`, `/v1/groups/${esc(group)}/rollback`);
export const startRollout = (group: string, r: NewRollout): Action => post(`rollout/${group}`, `/v1/groups/${esc(group)}/rollouts`, r);
export const steerRollout = (id: string, verb: "pause" | "resume" | "promote" | "abort"): Action => post(`steer/${id}`, `/v1/rollouts/${esc(id)}/${verb}`);
export const pushRevision = (group: string, text: string, message: string, dryRun: boolean, format = ""): Action => {
  const q = new URLSearchParams();
  if (format) q.set("format", format);
  if (message) q.set("message", message);
  if (dryRun) q.set("dry_run", "true");
  return post(`${dryRun ? "check" : "push"}/${group}`, `/v1/groups/${esc(group)}/revisions?${q}`, text);
};
export const installLicense = (license: string): Action => ({ key: "license", role: "admin", method: "PUT", path: "/v1/license", body: { license } });
export const createToken = (body: Record<string, unknown>): Action => ({ ...post("token", "/v1/tokens", body), role: "admin" });
export const revokeToken = (id: string): Action => ({ key: `token/${id}`, role: "admin", method: "DELETE", path: `/v1/tokens/${esc(id)}` });

/** Does it, keeps its progress in the store, and has the view's data read again. Never rejects. */
export async function perform(store: Store, a: Action): Promise<Doing> {
  const begun: Doing = { state: "running", at: Date.now(), body: undefined, problem: "", faults: [] };
  store.progress(a.key, begun);
  let end: Doing;
  try {
    end = { ...begun, state: "done", body: await send<unknown>(a, new AbortController().signal) };
  } catch (err) {
    const problem = err instanceof Error ? err.message : String(err);
    end = { ...begun, state: "failed", problem, faults: err instanceof CallError ? err.faults : [] };
  }
  store.progress(a.key, end);
  store.readAgain();
  return end;
}
