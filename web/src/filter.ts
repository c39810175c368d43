// The filter box of tables: words that must all match. "state:down group:eu
// gw" keeps rows whose state begins with down, whose group begins with eu, and
// that have gw anywhere in their text.

export interface Term {
  /** Empty for a word without a field. */
  field: string;
  /** Lower case. */
  value: string;
  /** A leading '-' turns a term around. */
  not: boolean;
}

/**
 * Reads a filter. fields are the names that may stand before a colon; any other
 * word with a colon, such as billing:8080, is text. Quotes keep spaces together.
 * A field whose value is still to be typed matches everything.
 */
export function parseFilter(text: string, fields: readonly string[]): Term[] {
  const terms: Term[] = [];
  for (const m of text.matchAll(/(-?)((?:"[^"]*"?|[^\s"])+)/g)) {
    const word = (m[2] ?? "").replaceAll('"', "").toLowerCase();
    const colon = word.indexOf(":");
    const field = colon > 0 && fields.includes(word.slice(0, colon)) ? word.slice(0, colon) : "";
    const value = field === "" ? word : word.slice(colon + 1);
    if (value !== "") terms.push({ field, value, not: m[1] === "-" });
  }
  return terms;
}

/** What a row offers to a filter: text for its fields. A field may have several values. */
export type Fields = Record<string, string | readonly string[]>;

/** Reports whether a row has all terms. */
export function matches(terms: readonly Term[], fields: Fields): boolean {
  return terms.every((t) => {
    const values = t.field === "" ? Object.values(fields).flat() : [fields[t.field] ?? []].flat();
    const hit = values.some((s) => (t.field === "" ? s.toLowerCase().includes(t.value) : s.toLowerCase().startsWith(t.value)));
    return hit !== t.not;
  });
}
