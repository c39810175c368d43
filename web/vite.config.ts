import { rm, writeFile } from "node:fs/promises";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const root = new URL(".", import.meta.url).pathname;

/**
 * Clears what the last build left in dist/ but keeps dist/.keep, the
 * placeholder that lets Go embed the folder before the page was built.
 */
function clearDist(): Plugin {
  return {
    name: "clear-dist",
    apply: "build",
    async buildStart() {
      for (const name of ["assets", "index.html", "login.html", "login.css", "favicon.svg"]) {
        await rm(`${root}dist/${name}`, { recursive: true, force: true });
      }
    },
    async closeBundle() {
      await writeFile(`${root}dist/.keep`, "");
    },
  };
}

/**
 * In `npm run dev` the API is a fake one in the same process, or a real manager
 * when BINNACLE_URL names it (BINNACLE_TOKEN is sent as its bearer token).
 */
function fakeAPI(): Plugin {
  return {
    name: "fake-api",
    apply: "serve",
    async configureServer(server) {
      if (process.env.BINNACLE_URL || process.env.VITEST) return;
      const path = `${root}dev/fake.mjs`;
      const { makeFake } = await import(path);
      const fake = makeFake({});
      server.middlewares.use((req, res, next) => {
        if (!fake(req, res)) next();
      });
    },
  };
}

const manager = process.env.BINNACLE_URL;
const headers: Record<string, string> = process.env.BINNACLE_TOKEN
  ? { authorization: `Bearer ${process.env.BINNACLE_TOKEN}` }
  : {};

export default defineConfig({
  plugins: [clearDist(), fakeAPI()],
  server: {
    host: "127.0.0.1",
    proxy: manager
      ? { "/v1": { target: manager, headers }, "/prometheus": { target: manager, headers } }
      : {},
  },
  build: {
    emptyOutDir: false,
    target: "es2022",
    // The content security policy allows neither data: addresses nor inline
    // scripts and styles: everything is a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssMinify: true,
    rolldownOptions: {
      input: { index: `${root}index.html`, login: `${root}login.html` },
      output: {
        // The login page and its style are open to all; a fixed name lets the
        // manager's route table say so.
        assetFileNames: (asset) =>
          asset.names.includes("login.css") ? "login.css" : "assets/[name]-[hash][extname]",
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
      },
    },
  },
  test: { environment: "node", include: ["src/**/*.test.{ts,tsx}"] },
});
