// How numbers, durations and times look, in one place: tabular figures, three
// significant digits, the unit next to the number. Zero is "0", none is an en
// dash. All functions are pure; times are Unix milliseconds, durations seconds
// unless the name says otherwise.

/** What stands where there is no value. */
export const NONE = "–";

/** Keeps number and unit on one line. */
const NBSP = "\u00a0";

/** Three significant digits without trailing zeros: 1.28, 12.8, 128, 0.42. */
export function sig3(n: number): string {
  if (n === 0) return "0";
  const abs = Math.abs(n);
  if (abs >= 99.95) return String(Math.round(n));
  return String(Number(n.toPrecision(3)));
}

/** scaled divides n by the largest step that leaves at least 1 after rounding. */
function scaled(n: number, base: number, units: readonly string[]): { value: string; unit: string } {
  let i = 0;
  let v = n;
  // 999.5 rounds to 1000 and belongs to the next unit.
  while (Math.abs(v) >= base * 0.9995 && i < units.length - 1) {
    v /= base;
    i++;
  }
  return { value: sig3(v), unit: units[i] ?? "" };
}

const THOUSANDS = ["", "k", "M", "G", "T"] as const;

/** A short count: 950, 1.28 k, 3.1 M. */
export function short(n: number): string {
  const { value, unit } = scaled(n, 1000, THOUSANDS);
  return unit === "" ? value : value + NBSP + unit;
}

/** An exact count with grouped digits: 12,345,678. */
export function exact(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Requests per second: 0, 3.2 /s, 1.28 k/s. */
export function rate(perSecond: number | null | undefined): string {
  if (perSecond === null || perSecond === undefined || Number.isNaN(perSecond)) return NONE;
  if (perSecond === 0) return "0";
  if (perSecond < 0.001) return `<0.001${NBSP}/s`;
  const { value, unit } = scaled(perSecond, 1000, THOUSANDS);
  return `${value}${NBSP}${unit}/s`;
}

/** A share as percent: 0, 0.42 %, 100 %. */
export function ratio(r: number | null | undefined): string {
  if (r === null || r === undefined || Number.isNaN(r)) return NONE;
  if (r === 0) return "0";
  const percent = r * 100;
  if (percent < 0.001) return `<0.001${NBSP}%`;
  return `${sig3(percent)}${NBSP}%`;
}

/** A share in the words of a sentence, which should not flicker: 3 %, 16 %, all. */
export function roughly(r: number): string {
  const percent = r * 100;
  if (percent >= 99.5) return "all";
  return `${Math.max(1, Math.round(percent))}${NBSP}%`;
}

/** A latency or another short duration: 420 µs, 34 ms, 1.2 s, 3 min. */
export function seconds(s: number | null | undefined): string {
  if (s === null || s === undefined || Number.isNaN(s)) return NONE;
  if (s === 0) return "0";
  if (s < 999.5e-6) return `${sig3(s * 1e6)}${NBSP}µs`;
  if (s < 0.9995) return `${sig3(s * 1e3)}${NBSP}ms`;
  if (s < 59.95) return `${sig3(s)}${NBSP}s`;
  return span(Math.round(s) * 1000);
}

/** Bytes in binary units: 512 B, 1.5 KiB. */
export function bytes(n: number | null | undefined): string {
  if (n === null || n === undefined) return NONE;
  const { value, unit } = scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return value + NBSP + unit;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A length of time in milliseconds by its one or two largest units: 12 s, 3 min, 2 h 5 min, 4 d. */
export function span(ms: number): string {
  const t = Math.max(0, ms);
  if (t < MINUTE) return `${Math.floor(t / SECOND)}${NBSP}s`;
  if (t < HOUR) return `${Math.floor(t / MINUTE)}${NBSP}min`;
  if (t < DAY) {
    const h = Math.floor(t / HOUR);
    const m = Math.floor((t % HOUR) / MINUTE);
    return m === 0 || h >= 10 ? `${h}${NBSP}h` : `${h}${NBSP}h ${m}${NBSP}min`;
  }
  return `${Math.floor(t / DAY)}${NBSP}d`;
}

/** What is left of a time in milliseconds, by its two largest units: 4 d 23 h, 2 h 5 min, 12 min 30 s. */
export function countdown(ms: number): string {
  const t = Math.max(0, ms);
  const units = ([[DAY, HOUR], [HOUR, MINUTE], [MINUTE, SECOND]] as const).find(([big]) => t >= big);
  if (!units) return span(t);
  const [big, small] = units;
  const rest = Math.floor((t % big) / small) * small;
  return span(t - (t % big)) + (rest > 0 ? ` ${span(rest)}` : "");
}

/** How long ago at was: "3 min ago", "just now" below two seconds. */
export function ago(at: number, now: number): string {
  const d = now - at;
  return d < 2 * SECOND ? "just now" : `${span(d)} ago`;
}

const two = (n: number): string => String(n).padStart(2, "0");

/** Local time of day: 02:41, or 02:41:07 with seconds. */
export function clock(at: number, withSeconds = false): string {
  const d = new Date(at);
  const hm = `${two(d.getHours())}:${two(d.getMinutes())}`;
  return withSeconds ? `${hm}:${two(d.getSeconds())}` : hm;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Local time, with the day once it is not today's: 02:41 (or 02:41:07), Nov 22 02:41, 2025 Nov 22. */
export function when(at: number, now: number, withSeconds = false): string {
  const d = new Date(at);
  const n = new Date(now);
  if (d.getFullYear() !== n.getFullYear()) return `${d.getFullYear()} ${MONTHS[d.getMonth()]} ${d.getDate()}`;
  if (d.getMonth() === n.getMonth() && d.getDate() === n.getDate()) return clock(at, withSeconds);
  return `${MONTHS[d.getMonth()]} ${d.getDate()} ${clock(at)}`;
}

/** For hovering: the time in UTC and its age. */
export function hoverTime(at: number, now: number): string {
  const utc = new Date(at).toISOString().replace("T", " ").slice(0, 19);
  return at <= now ? `${utc} UTC, ${ago(at, now)}` : `${utc} UTC, in ${span(at - now)}`;
}

/** Names a window of so many seconds: "last 30 s", "last 5 min", "last 24 h". */
export function windowName(s: number): string {
  return `last ${s < 60 ? `${sig3(s)}${NBSP}s` : s === 86400 ? `24${NBSP}h` : span(s * 1000)}`;
}

/** Parses RFC 3339; undefined for absent, unreadable and Go's zero time. */
export function parseTime(s: string | null | undefined): number | undefined {
  if (!s) return undefined;
  const t = Date.parse(s);
  return Number.isNaN(t) || t <= 0 ? undefined : t;
}

/** "1 node", "3 nodes". */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${exact(n)} ${n === 1 ? one : many}`;
}

/** Joins names for a sentence: "a", "a and b", "a, b and c". */
export function and(names: readonly string[]): string {
  if (names.length < 2) return names[0] ?? "";
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}
