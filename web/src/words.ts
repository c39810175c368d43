// Texts of the event log with the ids in them made readable: a node's id gives
// way to its name and leads to the node, a rollout's leads to the rollout. Text
// stays text: what comes out is pieces, never markup. Pure functions.

import { nodeHref, rolloutHref } from "./routes";

export interface Piece {
  text: string;
  href?: string;
}

/** Node ids, and a rollout's id where a message begins with it, as the manager makes them. */
const IDS = /\bn-[0-9a-f]{12}\b|^r\d+(?=: )/g;

export function pieces(text: string, names: ReadonlyMap<string, string>): Piece[] {
  const out: Piece[] = [];
  let end = 0;
  for (const m of text.matchAll(IDS)) {
    const id = m[0];
    const node = id.startsWith("n-");
    if (node && !names.has(id)) continue; // gone: its id is all there is
    if (m.index > end) out.push({ text: text.slice(end, m.index) });
    out.push(node ? { text: names.get(id) ?? id, href: nodeHref(id) } : { text: id, href: rolloutHref(id) });
    end = m.index + id.length;
  }
  if (end < text.length) out.push({ text: text.slice(end) });
  return out;
}

/** The same as plain text. */
export const plain = (text: string, names: ReadonlyMap<string, string>): string => pieces(text, names).map((p) => p.text).join("");
