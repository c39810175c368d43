// The difference of two texts by lines, side by side. Myers' algorithm in its
// linear form costs more code than a configuration needs: common beginnings and
// ends are cut off, and the rest is compared within a bound.
//
// Source: E. W. Myers, "An O(ND) Difference Algorithm and Its Variations", 1986.

/** One line on each side; a number is 1-based, undefined where the side has no such line. */
export interface Pair {
  kind: "same" | "changed" | "removed" | "added";
  left: string | undefined;
  right: string | undefined;
  leftLine: number | undefined;
  rightLine: number | undefined;
}

/** Edits are looked for up to this many; texts further apart are shown as wholly changed. */
const MOST_EDITS = 2000;

/** Pairs the lines of two texts. */
export function pairLines(before: string, after: string): Pair[] {
  const a = before.split("\n");
  const b = after.split("\n");
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const kept = matchLines(a.slice(head, a.length - tail), b.slice(head, b.length - tail)).map(([i, j]): [number, number] => [i + head, j + head]);
  const matched: [number, number][] = [
    ...Array.from({ length: head }, (_, i): [number, number] => [i, i]),
    ...kept,
    ...Array.from({ length: tail }, (_, i): [number, number] => [a.length - tail + i, b.length - tail + i]),
  ];
  const pairs: Pair[] = [];
  let [i, j] = [0, 0];
  for (const [mi, mj] of [...matched, [a.length, b.length] as [number, number]]) {
    // What lies between two matches stands beside each other as far as it goes.
    const n = Math.max(mi - i, mj - j);
    for (let k = 0; k < n; k++) {
      const left = i + k < mi ? a[i + k] : undefined;
      const right = j + k < mj ? b[j + k] : undefined;
      pairs.push({
        kind: left === undefined ? "added" : right === undefined ? "removed" : "changed", left, right,
        leftLine: left === undefined ? undefined : i + k + 1, rightLine: right === undefined ? undefined : j + k + 1,
      });
    }
    if (mi < a.length) pairs.push({ kind: "same", left: a[mi], right: b[mj], leftLine: mi + 1, rightLine: mj + 1 });
    [i, j] = [mi + 1, mj + 1];
  }
  return pairs;
}

/** The longest common subsequence as pairs of indexes; none when the texts are too far apart. */
function matchLines(a: readonly string[], b: readonly string[]): [number, number][] {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const size = 2 * most + 3;
  const v = new Int32Array(size);
  const trace: Int32Array[] = [];
  const at = (k: number): number => (k + size) % size;
  for (let d = 0; d <= most; d++) {
    trace.push(v.slice());
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (v[at(k - 1)] ?? 0) < (v[at(k + 1)] ?? 0));
      let x = down ? (v[at(k + 1)] ?? 0) : (v[at(k - 1)] ?? 0) + 1;
      let y = x - k;
      while (x < a.length && y < b.length && a[x] === b[y]) {
        x++;
        y++;
      }
      v[at(k)] = x;
      if (x >= a.length && y >= b.length) return walkBack(trace, at, a.length, b.length, d);
    }
  }
  return [];
}

function walkBack(trace: readonly Int32Array[], at: (k: number) => number, n: number, m: number, edits: number): [number, number][] {
  const pairs: [number, number][] = [];
  let [x, y] = [n, m];
  for (let d = edits; d >= 0; d--) {
    const v = trace[d] ?? new Int32Array();
    const k = x - y;
    const down = k === -d || (k !== d && (v[at(k - 1)] ?? 0) < (v[at(k + 1)] ?? 0));
    const prevK = down ? k + 1 : k - 1;
    const prevX = d === 0 ? 0 : (v[at(prevK)] ?? 0);
    const prevY = d === 0 ? 0 : prevX - prevK;
    while (x > prevX && y > prevY) {
      x--;
      y--;
      pairs.push([x, y]);
    }
    [x, y] = [prevX, prevY];
  }
  return pairs.reverse();
}

/** Pairs near a change, and how many alike were left out before each run of them. */
export interface Hunk {
  skipped: number;
  pairs: Pair[];
}

/** Folds what is alike further than context lines from a change. */
export function hunks(pairs: readonly Pair[], context = 3): { hunks: Hunk[]; skipped: number } {
  const near = new Array<boolean>(pairs.length).fill(false);
  pairs.forEach((p, i) => {
    if (p.kind !== "same") near.fill(true, Math.max(0, i - context), Math.min(pairs.length, i + context + 1));
  });
  const out: Hunk[] = [];
  let skipped = 0;
  pairs.forEach((p, i) => {
    if (!near[i]) {
      skipped++;
      return;
    }
    if (i === 0 || !near[i - 1]) {
      out.push({ skipped, pairs: [] });
      skipped = 0;
    }
    out[out.length - 1]?.pairs.push(p);
  });
  return { hunks: out, skipped };
}

/** A text as it is compared: JSON on one line is laid out, anything else stays as it is. */
export function layOut(text: string): { text: string; laidOut: boolean } {
  if (text.trimEnd().includes("\n")) return { text, laidOut: false };
  try {
    return { text: JSON.stringify(JSON.parse(text), null, 2), laidOut: true };
  } catch {
    return { text, laidOut: false };
  }
}
