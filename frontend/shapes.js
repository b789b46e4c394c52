// The countries of Natural Earth 1:50m as SVG paths, in the Equal Earth projection.
import { readFileSync } from "node:fs";
import { geoCentroid, geoEqualEarth, geoPath } from "d3-geo";
import { feature } from "topojson-client";
import { presimplify, simplify } from "topojson-simplify";

const WIDTH = 2000;
const HEIGHT = 860; // without Antarctica
const TOLERANCE = 0.018; // square degrees
const SMALL = 16; // square units; smaller countries get a dot, so that they can be seen and hit
const LEFT_OUT = new Set(["Antarctica", "Siachen Glacier", "Indian Ocean Ter."]);

/** Return `{width, height, shapes}`; a shape is `{id, name, path}` with the ISO 3166 number, or the name without one. */
export function worldShapes() {
  const atlas = JSON.parse(readFileSync("node_modules/world-atlas/countries-50m.json", "utf8"));
  const simple = simplify(presimplify(atlas), TOLERANCE);
  const coarse = feature(simple, simple.objects.countries).features;
  const exact = feature(atlas, atlas.objects.countries).features;
  const projection = geoEqualEarth().rotate([-11, 0]).fitWidth(WIDTH, { type: "Sphere" });
  const [, top] = projection([11, 84]);
  projection.translate([projection.translate()[0], projection.translate()[1] - top]);
  const shapes = new Map();
  coarse.forEach((country, index) => {
    const { name } = country.properties;
    if (LEFT_OUT.has(name)) return;
    const id = country.id ?? name;
    const path = outline(country, exact[index], projection);
    const known = shapes.get(id);
    shapes.set(id, { id, name: known?.name ?? name, path: (known?.path ?? "") + path });
  });
  return { width: WIDTH, height: HEIGHT, shapes: [...shapes.values()].sort((a, b) => (a.id < b.id ? -1 : 1)) };
}

function outline(coarse, exact, projection) {
  if (geoPath(projection).area(exact) < SMALL) {
    const [x, y] = projection(geoCentroid(exact)).map(Math.round);
    return `M${x - 4} ${y}a4 4 0 1 0 8 0a4 4 0 1 0-8 0z`;
  }
  const pen = new Pen();
  geoPath(projection, pen)(coarse);
  return pen.finish();
}

/** Collects rings of whole units as relative SVG commands, and drops those that are less than a triangle. */
class Pen {
  #text = "";
  #ring = [];

  moveTo(x, y) {
    this.#flush();
    this.#add(x, y);
  }

  lineTo(x, y) {
    this.#add(x, y);
  }

  closePath() {
    this.#flush();
  }

  finish() {
    this.#flush();
    return this.#text;
  }

  #add(x, y) {
    const point = [Math.round(x), Math.round(y)];
    const last = this.#ring.at(-1);
    if (!last || last[0] !== point[0] || last[1] !== point[1]) this.#ring.push(point);
  }

  #flush() {
    const ring = this.#ring;
    this.#ring = [];
    if (ring.length < 4) return;
    const steps = ring.slice(1).map(([x, y], index) => pair(x - ring[index][0], y - ring[index][1]));
    this.#text += `M${ring[0][0]} ${ring[0][1]}l${steps.join(" ").replaceAll(" -", "-")}z`;
  }
}

function pair(x, y) {
  return `${x} ${y}`;
}
