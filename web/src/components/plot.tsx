// One uPlot chart. It knows drawing, cursor and zoom; what the lines mean is
// said by charts.tsx.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock, when } from "../format";
import { logTicks } from "../series";

/** A line of a chart. Colors are names of custom properties. */
export interface Line {
  label: string;
  stroke: string;
  /** Fills down to the line before it in a stack, or to zero. */
  fill?: string;
  width?: number;
  dash?: number[];
}

export interface Mark {
  /** Unix seconds. */
  time: number;
  id: number;
}

/** A point laid over the chart, that leads somewhere. */
export interface Dot {
  /** Unix seconds. */
  time: number;
  value: number;
  href: string;
  failed: boolean;
  label: string;
}

export interface PlotProps {
  testid: string;
  /** What a screen reader says of the chart. */
  label: string;
  lines: readonly Line[];
  /** Time in Unix seconds, then one column for each line. */
  columns: readonly (readonly (number | null)[])[];
  from: number;
  to: number;
  /** Each line stands on the one before it. */
  stacked?: boolean;
  log?: boolean;
  /** The upper end of the axis is at least this. */
  atLeast: number;
  format: (v: number) => string;
  height: number;
  /** Whether times stand below. */
  withTimes: boolean;
  marks: readonly Mark[];
  dots?: readonly Dot[];
  /** The cursor is on the point with this index; undefined when it has left. */
  onHover: (index: number | undefined) => void;
  onZoom: (from: number, to: number) => void;
  onReset: () => void;
}

/** All charts of the page share cursor and zoom under this name. */
const SYNC = "time";

/** Width of the axis of values; equal in all charts, so that their times line up. */
const AXIS = 62;
const TIMES = 26;
/** Room for half a time at the right end. */
const RIGHT = 26;

/** What may lie between two times on the axis, in seconds. */
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

const highest = (dots: readonly Dot[] | undefined): number => (dots ?? []).reduce((m, d) => Math.max(m, d.value), 0);

const color = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function options(p: PlotProps, width: number, current: () => PlotProps, drawn: (u: uPlot) => void): uPlot.Options {
  const ink = color("ink-3");
  const font = `${color("chart-font")} ${color("font")}`;
  const grid = { stroke: color("grid"), width: 1 };
  // In a stack only the lowest has a line: one of nothing would lie upon it.
  const series: uPlot.Series[] = p.lines.map((l, i) => ({
    label: l.label,
    stroke: color(l.stroke),
    width: p.stacked && i > 0 ? 0 : (l.width ?? 1.25),
    spanGaps: false,
    points: { show: false },
    ...(l.dash ? { dash: l.dash } : {}),
    ...(l.fill && !p.stacked ? { fill: color(l.fill) } : {}),
  }));
  const first = p.lines[0];
  // uPlot fills bands between two lines; the lowest fills down to zero.
  const bands: uPlot.Band[] = p.stacked ? p.lines.slice(1).map((l, i) => ({ series: [i + 2, i + 1], fill: color(l.fill ?? l.stroke) })) : [];
  if (p.stacked && first && series[0]) series[0].fill = color(first.fill ?? first.stroke);
  return {
    width,
    height: p.height,
    legend: { show: false },
    padding: [8, RIGHT, p.withTimes ? 0 : 6, 0],
    cursor: {
      sync: { key: SYNC, setSeries: false },
      y: false,
      points: { size: 6 },
      drag: { x: true, y: false, setScale: false, dist: 5 },
      bind: { dblclick: () => (() => { current().onReset(); return null; }) as uPlot.Cursor.MouseListener },
    },
    scales: {
      x: { time: true, range: () => [current().from, current().to] },
      y: p.log
        ? { distr: 3, log: 10, range: (_u, min, max) => [(min ?? 0.001) / 1.3, Math.max(max ?? 1, highest(current().dots)) * 1.3] }
        : { range: (_u, _min, max) => [0, Math.max(Math.max(max ?? 0, highest(current().dots)) * 1.1, current().atLeast)] },
    },
    axes: [
      {
        show: true, stroke: ink, font, grid, ticks: { show: false },
        size: p.withTimes ? TIMES : 0,
        space: 70,
        incrs: TIME_STEPS,
        values: (_u, splits, _axis, _space, incr) => (p.withTimes ? splits.map((t) => (incr >= 86400 ? when(t * 1000, Date.now()) : clock(t * 1000, incr < 60))) : splits.map(() => "")),
      },
      {
        stroke: ink, font, grid, ticks: { show: false }, size: AXIS, gap: 8, space: 28,
        values: (_u, splits) => splits.map((v) => (v === null ? "" : p.format(v))),
        ...(p.log ? { splits: (_u: uPlot, _i: number, min: number, max: number) => logTicks(min, max, Math.max(2, Math.floor(p.height / 32))), filter: (_u: uPlot, s: number[]) => s } : {}),
      },
    ],
    series: [{}, ...series],
    bands,
    hooks: {
      setCursor: [(u) => current().onHover(u.cursor.idx ?? undefined)],
      setSelect: [
        (u) => {
          const { left, width: w } = u.select;
          if (w < 5) return;
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          current().onZoom(u.posToVal(left, "x"), u.posToVal(left + w, "x"));
        },
      ],
      draw: [(u) => drawMarks(u, current().marks), drawn],
    },
  };
}

/** Draws thin vertical lines where events happened. */
function drawMarks(u: uPlot, marks: readonly Mark[]): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.strokeStyle = color("mark");
  ctx.lineWidth = Math.max(1, devicePixelRatio);
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.beginPath();
  for (const m of marks) {
    const x = Math.round(u.valToPos(m.time, "x", true)) + 0.5;
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
  }
  ctx.stroke();
  ctx.restore();
}

export function Plot(props: PlotProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  // Where the dots are is known once the scales are.
  const [placed, place] = useState<readonly (Dot & { x: number; y: number })[]>([]);
  const setPlaces = (u: uPlot): void => {
    const { dots } = latest.current;
    if (!dots) return;
    const { left, top, width, height } = u.over.getBoundingClientRect();
    const outer = u.root.getBoundingClientRect();
    const next = dots.map((d) => ({ ...d, x: left - outer.left + u.valToPos(d.time, "x"), y: top - outer.top + Math.min(height, Math.max(0, u.valToPos(d.value, "y"))) })).filter((d) => d.x >= left - outer.left && d.x <= left - outer.left + width);
    place((old) => (old.length === 0 && next.length === 0 ? old : next));
  };

  // What cannot change in a living chart makes a new one.
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const make = (): void => {
      plot.current?.destroy();
      const p = latest.current;
      plot.current = new uPlot(options(p, Math.max(120, element.clientWidth), () => latest.current, setPlaces), p.columns as uPlot.AlignedData, element);
    };
    make();
    const resize = new ResizeObserver(() => {
      const width = Math.max(120, element.clientWidth);
      if (plot.current && plot.current.width !== width) plot.current.setSize({ width, height: latest.current.height });
    });
    resize.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    return () => {
      resize.disconnect();
      dark.removeEventListener("change", make);
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [props.log, props.height, props.lines, props.withTimes]);

  useEffect(() => {
    plot.current?.setData(props.columns as uPlot.AlignedData);
  }, [props.columns, props.from, props.to]);

  useEffect(() => {
    plot.current?.redraw(false);
  }, [props.marks]);

  useEffect(() => {
    if (props.dots) plot.current?.setData(props.columns as uPlot.AlignedData); // the scale covers them, too
  }, [props.dots]);

  const canvas = <div class="plot" ref={box} data-testid={props.testid} role="img" aria-label={props.label} />;
  if (!props.dots) return canvas;
  // Links stand beside the picture, not in it: a picture's parts are not read out.
  return (
    <div class="plotwrap">
      {canvas}
      <nav class="exemplars" aria-label="Slow requests with traces">
        {placed.map((d) => <a key={d.href} href={d.href} class={d.failed ? "exemplar exemplar-failed" : "exemplar"} style={{ left: `${d.x}px`, top: `${d.y}px` }} aria-label={d.label} title={d.label} />)}
      </nav>
    </div>
  );
}

/** The part of a chart's width that is plot, for what is laid over it. */
export const PLOT_INSET = { left: AXIS, right: RIGHT };
