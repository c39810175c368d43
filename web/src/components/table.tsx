// The one table: sortable headers, a filter box, 32 px rows, only the visible
// rows drawn when there are many, and cards on a phone (by the style sheet).

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { exact } from "../format";
import { type Fields, matches, parseFilter } from "../filter";

export interface Column<T> {
  key: string;
  /** Empty for a column of actions: it is not sorted, and title names it for a screen reader. */
  label: string;
  /** Explains the column on hover. */
  title?: string;
  /** Numbers stand right. */
  num?: boolean;
  /** Left out when the screen is too narrow for all columns. */
  minor?: boolean;
  /** Left out a little before that. */
  least?: boolean | undefined;
  /** What to sort by; null and undefined sort last either way. */
  sort: (row: T) => number | string | null | undefined;
  cell: (row: T) => ComponentChildren;
  /** The exact number behind a rounded cell, for programs. */
  raw?: (row: T) => number | null | undefined;
}

export interface TableProps<T> {
  /** Names the table for a screen reader. */
  caption: string;
  columns: readonly Column<T>[];
  rows: readonly T[];
  id: (row: T) => string;
  testid: (row: T) => string;
  /** What the filter box may ask for, by field. Without it there is no box. */
  fields?: (row: T) => Fields;
  fieldNames?: readonly string[];
  /** An example of a filter. */
  hint?: string;
  /** Filter and sorting ("-errors" is descending), and how they change. */
  filter: string;
  sort: string;
  onFilter: (text: string) => void;
  onSort: (sort: string) => void;
  /** The order where no column is chosen. */
  order?: (a: T, b: T) => number;
  /** Opens a row. */
  href?: (row: T) => string;
  /** The table stands among other things on its page. */
  brief?: boolean;
  empty: ComponentChildren;
}

/** Beyond this many rows only those in view are drawn; in a brief table sooner, so that it leaves room for others. */
const MANY = 200;
const MANY_BRIEF = 25;
/** Height of a row until one was measured: on a wall they are higher, on a phone they are cards. */
const ROW = 32;
/** Rows of many that are drawn before it is known how many are in view. */
const FIRST_ROWS = 36;
/** Rows drawn above and below the view, so that scrolling shows no gap. */
const SPARE = 12;

/** Splits "-errors" into column and direction. */
export function parseSort(sort: string): { key: string; down: boolean } {
  return sort.startsWith("-") ? { key: sort.slice(1), down: true } : { key: sort, down: false };
}

/** Compares for sorting; null and undefined come last in both directions. */
export function compare(a: number | string | null | undefined, b: number | string | null | undefined, down: boolean): number {
  const none = (v: unknown): boolean => v === null || v === undefined;
  if (none(a) || none(b)) return none(a) ? (none(b) ? 0 : 1) : -1;
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

/** Filters and sorts; equal rows stay in their order. */
export function arrange<T>(p: Pick<TableProps<T>, "rows" | "columns" | "fields" | "fieldNames" | "filter" | "sort" | "order">): T[] {
  const { fields } = p;
  const terms = fields ? parseFilter(p.filter, p.fieldNames ?? []) : [];
  const kept = fields && terms.length > 0 ? p.rows.filter((r) => matches(terms, fields(r))) : [...p.rows];
  const { key, down } = parseSort(p.sort);
  const column = p.columns.find((c) => c.key === key);
  if (column) return kept.sort((a, b) => compare(column.sort(a), column.sort(b), down));
  return p.order ? kept.sort(p.order) : kept;
}

export function Table<T>(p: TableProps<T>) {
  const rows = useMemo(() => arrange(p), [p.rows, p.columns, p.filter, p.sort]);
  const many = rows.length > (p.brief ? MANY_BRIEF : MANY);
  const view = useRef<HTMLDivElement>(null);
  const [row, setRow] = useState(ROW);
  const [range, setRange] = useState({ from: 0, to: FIRST_ROWS });
  const look = (): void => {
    const v = view.current;
    if (!v) return;
    const height = v.querySelector("tbody tr:not(.spacer)")?.getBoundingClientRect().height || row;
    if (Math.abs(height - row) > 1) setRow(height);
    const from = Math.max(0, Math.floor(v.scrollTop / height) - SPARE);
    const to = Math.ceil((v.scrollTop + v.clientHeight) / height) + SPARE;
    if (from !== range.from || to !== range.to) setRange({ from, to });
  };
  useEffect(look, [many, rows.length]);
  const shown = many ? rows.slice(range.from, range.to) : rows;
  const above = many ? Math.min(range.from, rows.length) * row : 0;
  const below = many ? Math.max(0, rows.length - range.to) * row : 0;
  const sorted = parseSort(p.sort);

  return (
    <div class={p.brief ? "tablebox brief" : "tablebox"}>
      {p.fields && (
        <div class="filter">
          <input type="search" aria-label={`Filter ${p.caption.toLowerCase()}`} placeholder={p.hint ? `Filter, e.g. ${p.hint}` : "Filter"} value={p.filter} onInput={(e) => p.onFilter(e.currentTarget.value)} />
          <span class="count" role="status">
            {rows.length === p.rows.length ? "" : `${exact(rows.length)} of ${exact(p.rows.length)}`}
          </span>
        </div>
      )}
      <div class={many ? "scroll many" : "scroll"} ref={view} onScroll={many ? look : undefined} tabIndex={many ? 0 : undefined} role={many ? "region" : undefined} aria-label={many ? `${p.caption}, scrolling` : undefined}>
        <table class="rows" aria-rowcount={many ? rows.length + 1 : undefined}>
          <caption class="sr">{p.caption}</caption>
          <thead>
            <tr>
              {p.columns.map((c) => {
                if (c.label === "") return <th key={c.key} scope="col" class={classes(c)}><span class="sr">{c.title ?? "Actions"}</span></th>;
                const on = c.key === sorted.key;
                // Numbers are asked for largest first, words from A.
                const next = on ? (sorted.down === !!c.num ? (c.num ? c.key : `-${c.key}`) : "") : c.num ? `-${c.key}` : c.key;
                return (
                  <th key={c.key} scope="col" class={classes(c)} aria-sort={on ? (sorted.down ? "descending" : "ascending") : undefined} title={c.title}>
                    <button type="button" onClick={() => p.onSort(next)}>
                      {c.label}
                      <span class="arrow" aria-hidden="true">{on ? (sorted.down ? "▾" : "▴") : ""}</span>
                    </button>
                  </th>
                );
              })}
            </tr>
          </thead>
          <tbody>
            {above > 0 && <Spacer height={above} columns={p.columns.length} />}
            {shown.map((row) => (
              <Row key={p.id(row)} row={row} p={p} />
            ))}
            {below > 0 && <Spacer height={below} columns={p.columns.length} />}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && <p class="none">{p.rows.length === 0 ? p.empty : "No row matches the filter."}</p>}
    </div>
  );
}

function classes<T>(c: Column<T>): string {
  return [c.num ? "num" : "", c.minor ? "minor" : "", c.least ? "least" : ""].filter(Boolean).join(" ");
}

function Row<T>({ row, p }: { row: T; p: TableProps<T> }) {
  const href = p.href?.(row);
  return (
    <tr data-testid={p.testid(row)} class={href ? "opens" : undefined} onClick={href ? openRow : undefined}>
      {p.columns.map((c, i) => {
        const raw = c.raw?.(row);
        const cell = c.cell(row);
        return (
          <td key={c.key} class={classes(c)} data-col={c.key} data-label={c.label} data-value={raw ?? undefined}>
            {i === 0 && href ? <a href={href}>{cell}</a> : cell}
          </td>
        );
      })}
    </tr>
  );
}

/** A click anywhere in a row follows the row's link, unless text is being selected or another thing was clicked. */
function openRow(e: MouseEvent): void {
  const target = e.target as Element;
  if (target.closest("a, button, input") || String(getSelection() ?? "") !== "") return;
  (e.currentTarget as Element).querySelector<HTMLAnchorElement>("td a")?.click();
}

function Spacer({ height, columns }: { height: number; columns: number }) {
  return (
    <tr aria-hidden="true" class="spacer">
      <td colSpan={columns} style={{ height: `${height}px` }} />
    </tr>
  );
}
