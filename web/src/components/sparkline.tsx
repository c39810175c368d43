// A line as small as a word. All of a column share one scale.

/** Width and height in pixels. */
const SIZE = { w: 88, h: 20 };

/** The points of a polyline, the newest at the right end; points is how many the full width holds. */
export function sparkPoints(values: readonly number[], top: number, points: number): string {
  const dx = SIZE.w / Math.max(1, points - 1);
  const first = points - values.length;
  return values.map((v, i) => `${((first + i) * dx).toFixed(1)},${(SIZE.h - 1 - (top > 0 ? Math.min(1, v / top) : 0) * (SIZE.h - 2)).toFixed(1)}`).join(" ");
}

export function Sparkline({ values, top, points, label }: { values: readonly number[]; top: number; points: number; label: string }) {
  if (values.length < 2) return <span class="silent">…</span>;
  return (
    <svg class="spark" width={SIZE.w} height={SIZE.h} viewBox={`0 0 ${SIZE.w} ${SIZE.h}`} role="img" aria-label={label}>
      <polyline points={sparkPoints(values, top, points)} />
    </svg>
  );
}
