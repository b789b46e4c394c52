// Writes the vendored libraries, their manifest and licences, and the shapes of the world map. `make vendor` runs it.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { build } from "esbuild";
import { worldShapes } from "./shapes.js";

const EXPLORER = "../music_assets/service/explorer";
const VENDOR = `${EXPLORER}/static/vendor`;
const FILES = {
  "pico.css": "node_modules/@picocss/pico/css/pico.css",
  "htmx.js": "node_modules/htmx.org/dist/htmx.min.js",
  "sql-editor.js": "sql-editor.js",
  "datatables.js": "node_modules/datatables.net/js/dataTables.mjs",
  "datatables.css": "node_modules/datatables.net-dt/css/dataTables.dataTables.css",
  "plots.js": "plots.js",
};

const files = [];
const licences = new Map();
for (const [name, entry] of Object.entries(FILES)) {
  const isModule = name.endsWith(".js") && name !== "htmx.js";
  const result = await build({
    entryPoints: [entry],
    outfile: `${VENDOR}/${name}`,
    bundle: isModule,
    format: isModule ? "esm" : undefined,
    minify: true,
    legalComments: "none",
    metafile: true,
  });
  const packages = packagesOf(Object.keys(result.metafile.inputs));
  files.push({ file: name, sha256: digest(`${VENDOR}/${name}`), packages: packages.map(describe) });
}

writeFileSync(`${EXPLORER}/world_shapes.json`, JSON.stringify(worldShapes(), null, 0) + "\n");
const atlas = ["node_modules/world-atlas"].map(describe);
files.push({ file: "../../world_shapes.json", sha256: digest(`${EXPLORER}/world_shapes.json`), packages: atlas });

const texts = [...licences].sort().map(([name, text]) => `${name}\n${"=".repeat(name.length)}\n\n${text.trim()}\n`);
writeFileSync(`${VENDOR}/LICENSES.txt`, texts.join("\n\n"));
files.push({ file: "LICENSES.txt", sha256: digest(`${VENDOR}/LICENSES.txt`), packages: [] });
writeFileSync(`${VENDOR}/manifest.json`, JSON.stringify(files, null, 2) + "\n");

function packagesOf(inputs) {
  const folders = inputs.map((path) => path.match(/^.*node_modules\/(@[^/]+\/)?[^/]+/)?.[0]).filter(Boolean);
  return [...new Set(folders)].sort();
}

function describe(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = existsSync(folder) && readdirSync(folder).find((each) => /^(license|licence|copying)/i.test(each));
  licences.set(`${name} ${version} (${license})`, file ? readFileSync(join(folder, file), "utf8") : license);
  return { name, version, license };
}

function digest(path) {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
