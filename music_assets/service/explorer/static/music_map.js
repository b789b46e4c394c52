// The map of music, drawn by Vega-Lite. Expressions are interpreted, since the security policy allows no eval.

import { compile, expressionInterpreter, parse, View } from "./vendor/plots.js";

const COLOURS = ["#3f8abd", "#d97706", "#2f9e5f", "#c94f7c", "#8a63c9", "#b8a000", "#1aa3a3", "#a0603a", "#6d83f2"];
const OTHER = "other countries";
const FOUND = 20;
const LABEL_WIDTH = 130;
const LABEL_HEIGHT = 26;
const CLICK_RADIUS = 12;
const MARGIN = 60;

const [place, status, search, legend, found, tooltip] = ["map", "map-status", "map-search", "map-legend", "map-found", "map-tooltip"].map(
  (id) => document.getElementById(id),
);
const dark = matchMedia("(prefers-color-scheme: dark)");

let artists = [];
let groups = [];
let whole = null;
let domain = null;
let view = null;

start();

async function start() {
  try {
    const response = await fetch("/explore/map/points");
    if (!response.ok) throw new Error();
    artists = read(await response.json());
  } catch {
    status.removeAttribute("aria-busy");
    status.textContent = "The map cannot be loaded. Reload the page to try again.";
    return;
  }
  status.removeAttribute("aria-busy");
  status.textContent = `${artists.length.toLocaleString("en")} artists`;
  place.hidden = false;
  whole = { x: extent("x"), y: extent("y") };
  domain = whole;
  await draw();
  new ResizeObserver(draw).observe(place);
  dark.addEventListener("change", draw);
}

function read({ names, x, y, listeners, countries, country }) {
  const counts = new Map();
  for (const number of country) counts.set(number, (counts.get(number) ?? 0) + 1);
  counts.delete(-1);
  const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length).map(([number]) => number);
  groups = [...largest.map((number) => countries[number]), OTHER];
  return names.map((name, index) => ({
    name,
    x: x[index],
    y: y[index],
    listeners: listeners[index],
    home: countries[country[index]] ?? "unknown",
    group: largest.includes(country[index]) ? countries[country[index]] : OTHER,
  }));
}

function extent(axis) {
  const values = artists.map((artist) => artist[axis]);
  return [Math.min(...values) - MARGIN, Math.max(...values) + MARGIN];
}

function colours() {
  return [...COLOURS.slice(0, groups.length - 1), dark.matches ? "#77808c" : "#9aa3ad"];
}

function showLegend() {
  legend.replaceChildren(
    ...groups.map((group, index) => {
      const item = document.createElement("li");
      item.innerHTML = '<svg viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1"/></svg>';
      item.querySelector("rect").setAttribute("fill", colours()[index]);
      item.append(group);
      return item;
    }),
  );
}

// --- Drawing

async function draw() {
  const width = place.clientWidth;
  const height = place.clientHeight;
  if (!width || !height) return;
  showLegend();
  const text = getComputedStyle(document.body).color;
  const axes = { axis: null };
  const spec = {
    width,
    height,
    autosize: { type: "none" },
    background: "transparent",
    padding: 0,
    config: { view: { stroke: null }, font: "system-ui, sans-serif" },
    params: [{ name: "words", value: search.value.toLowerCase() }],
    layer: [
      {
        data: { name: "artists", values: artists },
        mark: { type: "circle", clip: true },
        encoding: {
          x: { field: "x", type: "quantitative", scale: { domain: domain.x, nice: false, zero: false }, ...axes },
          y: { field: "y", type: "quantitative", scale: { domain: domain.y, nice: false, zero: false }, ...axes },
          color: { field: "group", type: "nominal", scale: { domain: groups, range: colours() }, legend: null },
          size: { field: "listeners", type: "quantitative", scale: { type: "sqrt", range: [8, 260] }, legend: null },
          opacity: { condition: { test: "words === '' || indexof(lower(datum.name), words) >= 0", value: 0.8 }, value: 0.06 },
        },
      },
      {
        data: { name: "labels", values: labels(width, height) },
        mark: { type: "text", clip: true, align: "center", dy: -9, fontSize: 12, color: text },
        encoding: {
          x: { field: "x", type: "quantitative" },
          y: { field: "y", type: "quantitative" },
          text: { field: "name", type: "nominal" },
        },
      },
    ],
  };
  const compiled = compile(spec).spec;
  // Domains as signals, so that moving the map does not compile it again.
  for (const scale of compiled.scales.filter(({ name }) => name in domain)) {
    compiled.signals.push({ name: `${scale.name}_domain`, value: domain[scale.name] });
    scale.domain = { signal: `${scale.name}_domain` };
  }
  view?.finalize();
  view = new View(parse(compiled, null, { ast: true }), { expr: expressionInterpreter, renderer: "canvas", container: place, hover: false });
  await view.runAsync();
}

/** Return the largest artists in view whose names do not overlap; of those searched for, if something is. */
function labels(width, height) {
  const taken = new Set();
  const shown = [];
  const words = search.value.toLowerCase();
  for (const artist of artists) {
    if (words && !artist.name.toLowerCase().includes(words)) continue;
    const [x, y] = position(artist, width, height);
    if (x < 0 || x > width || y < 0 || y > height) continue;
    const [column, row] = [Math.round(x / LABEL_WIDTH), Math.round(y / LABEL_HEIGHT)];
    const near = [-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => `${column + dx} ${row + dy}`));
    if (near.some((cell) => taken.has(cell))) continue;
    taken.add(`${column} ${row}`);
    shown.push({ ...artist, name: artist.name.length > 24 ? `${artist.name.slice(0, 23)}…` : artist.name });
  }
  return shown;
}

function position({ x, y }, width, height) {
  return [
    ((x - domain.x[0]) / (domain.x[1] - domain.x[0])) * width,
    (1 - (y - domain.y[0]) / (domain.y[1] - domain.y[0])) * height,
  ];
}

async function show(next) {
  domain = next;
  view.signal("x_domain", domain.x).signal("y_domain", domain.y).data("labels", labels(place.clientWidth, place.clientHeight));
  await view.runAsync();
}

// --- Moving

/** Scale the part of the map in view by a factor, around a point given as shares of width and height. */
function zoom(factor, [across, down] = [0.5, 0.5]) {
  const scaled = ([low, high], share) => {
    const centre = low + (high - low) * share;
    const size = Math.min((high - low) * factor, (whole.x[1] - whole.x[0]) * 1.5);
    return [centre - size * share, centre + size * (1 - share)];
  };
  show({ x: scaled(domain.x, across), y: scaled(domain.y, 1 - down) });
}

/** Move the map by shares of its width and height. */
function move(across, down) {
  const moved = ([low, high], share) => [low + (high - low) * share, high + (high - low) * share];
  show({ x: moved(domain.x, across), y: moved(domain.y, -down) });
}

const MOVES = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, -0.2], ArrowDown: [0, 0.2] };
place.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return; // Ctrl and + is the browser's zoom
  if (MOVES[event.key]) move(...MOVES[event.key]);
  else if (event.key === "+") zoom(0.7);
  else if (event.key === "-") zoom(1 / 0.7);
  else return;
  event.preventDefault();
});

place.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, shares(event));
  },
  { passive: false },
);

let dragged = null;
place.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return; // a context menu, or a second finger
  dragged = { at: shares(event), moved: false };
  place.setPointerCapture(event.pointerId);
});
place.addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  const [across, down] = shares(event);
  if (!dragged) {
    showTooltip(nearest(event), event);
    return;
  }
  const [dx, dy] = [dragged.at[0] - across, dragged.at[1] - down];
  if (Math.hypot(dx * place.clientWidth, dy * place.clientHeight) < 3 && !dragged.moved) return;
  dragged = { at: [across, down], moved: true };
  tooltip.hidden = true;
  move(dx, dy);
});
place.addEventListener("pointerup", (event) => {
  if (!event.isPrimary || !dragged) return;
  const artist = !dragged.moved && nearest(event);
  dragged = null;
  if (artist) location.assign(address(artist));
});
place.addEventListener("pointerleave", () => (tooltip.hidden = true));

document.getElementById("zoom-in").addEventListener("click", () => zoom(0.6));
document.getElementById("zoom-out").addEventListener("click", () => zoom(1 / 0.6));
document.getElementById("zoom-reset").addEventListener("click", () => show(whole));

function shares({ clientX, clientY }) {
  const box = place.getBoundingClientRect();
  return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
}

function nearest(event) {
  const [across, down] = shares(event);
  const [width, height] = [place.clientWidth, place.clientHeight];
  let best = null;
  let least = CLICK_RADIUS;
  for (const artist of artists) {
    const [x, y] = position(artist, width, height);
    const distance = Math.hypot(x - across * width, y - down * height);
    if (distance < least) [best, least] = [artist, distance];
  }
  return best;
}

function showTooltip(artist, { clientX, clientY }) {
  tooltip.hidden = !artist;
  place.classList.toggle("on-artist", Boolean(artist));
  if (!artist) return;
  const listeners = `${artist.listeners.toLocaleString("en")} ${artist.listeners === 1 ? "listener" : "listeners"}`;
  tooltip.textContent = `${artist.name}: ${listeners}, most popular in ${artist.home}`;
  tooltip.style.left = `${Math.min(clientX + 14, innerWidth - tooltip.offsetWidth - 8)}px`;
  tooltip.style.top = `${clientY + 14}px`;
}

// --- Searching

function address({ name }) {
  return `/explore/artist?${new URLSearchParams({ name })}`;
}

search.addEventListener("input", async () => {
  const words = search.value.toLowerCase();
  const matches = words ? artists.filter(({ name }) => name.toLowerCase().includes(words)) : [];
  status.textContent = words
    ? `${matches.length.toLocaleString("en")} of ${artists.length.toLocaleString("en")} artists have “${search.value}” in the name`
    : `${artists.length.toLocaleString("en")} artists`;
  found.replaceChildren(...matches.slice(0, FOUND).map(link));
  if (view) {
    await view.signal("words", words).data("labels", labels(place.clientWidth, place.clientHeight)).runAsync();
  }
});

function link(artist) {
  const item = document.createElement("li");
  const anchor = document.createElement("a");
  anchor.href = address(artist);
  anchor.textContent = artist.name;
  item.append(anchor);
  return item;
}
