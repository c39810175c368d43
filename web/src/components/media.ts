// Whether a media query holds, as a hook: for sizes that a canvas must know.

import { useEffect, useState } from "preact/hooks";

export function useMedia(query: string): boolean {
  const [holds, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const m = matchMedia(query);
    const change = (): void => set(m.matches);
    change();
    m.addEventListener("change", change);
    return () => m.removeEventListener("change", change);
  }, [query]);
  return holds;
}

/** A screen on a wall, read from across the room. */
export const WALL = "(min-width: 1900px) and (min-height: 900px)";
