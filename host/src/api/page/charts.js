// Charts as SVG, drawn anew from their data: bars of tip switches, lines over time.

const SVG = "http://www.w3.org/2000/svg";
/** Width of the charts being drawn: that of their place, so that text has its own size everywhere. */
let WIDTH = 720;

function measure(place) {
  WIDTH = Math.max(260, Math.round(place.clientWidth || place.parentElement?.clientWidth || 720));
}

function shape(kind, attributes, text) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function canvas(height, label) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  svg.append(shape("title", {}, label));
  return svg;
}

function legend(entries) {
  const list = document.createElement("ul");
  list.className = "legend";
  for (const [tone, words] of entries) {
    const entry = document.createElement("li");
    entry.className = tone;
    entry.textContent = words;
    list.append(entry);
  }
  return list;
}

function nothing(words) {
  const p = document.createElement("p");
  p.className = "empty";
  p.textContent = words;
  return p;
}

/** Bars over a logarithmic scale of milliseconds. Each: { ms, tone, label, parts: [{ ms, tone }] }. */
export function bars(place, list, label) {
  if (!list.length) return place.replaceChildren(nothing("No tip has changed yet."));
  measure(place);
  const height = 190, left = 52, bottom = 20, top = 8;
  const svg = canvas(height, label);
  const steps = [1, 10, 100, 1000, 10000, 100000];
  const most = Math.max(10, ...list.map((bar) => bar.ms));
  const max = Math.log10(steps.find((step) => step >= most) ?? most) + 0.05;
  const y = (ms) => height - bottom - (Math.log10(Math.max(ms, 1)) / max) * (height - bottom - top);
  for (const step of steps.filter((step) => Math.log10(step) <= max)) {
    svg.append(shape("line", { class: "grid", x1: left, x2: WIDTH, y1: y(step), y2: y(step) }));
    const words = step < 1000 ? `${step} ms` : `${step / 1000} s`;
    svg.append(shape("text", { x: left - 6, y: y(step) + 4, "text-anchor": "end" }, words));
  }
  list = list.slice(-Math.floor((WIDTH - left) / 9));
  const room = Math.min(26, (WIDTH - left) / Math.max(list.length, 24));
  const every = Math.ceil(64 / room);
  list.forEach((bar, index) => {
    const x = left + index * room + room * 0.15;
    const at = y(Math.max(bar.ms, 1.3));
    const rect = shape("rect", { class: bar.tone, x, y: at, width: room * 0.7, height: height - bottom - at, rx: 2 });
    rect.append(shape("title", {}, bar.label));
    svg.append(rect);
    if (index % every === 0 && (index + 1.2) * room + left < WIDTH - 20) {
      svg.append(shape("text", { x: x + room * 0.35, y: height - 5, "text-anchor": "middle" }, bar.tick));
    }
  });
  place.replaceChildren(svg, legend([["good", "served in time"], ["warn", "after a hold"], ["bad", "given up: miners disconnected"]]));
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value || 1));
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

/**
 * Lines over time. `lines`: [{ points: [[ms, number]], kind: "line" | "area" | "second", name, tone }];
 * `dots`: [{ at, value, label }] in the tone of what went wrong.
 */
export function lines(place, list, { label, format, height = 150, dots = [], floor = 0, least = 2 }) {
  const all = list.flatMap((line) => line.points);
  if (all.length < 2) return place.replaceChildren(nothing("Nothing to show yet."));
  measure(place);
  const left = 96, bottom = 20, top = 10;
  const times = all.map(([at]) => at);
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const values = all.map(([, value]) => value);
  const low = floor === null ? Math.min(...values) : floor;
  const high = low + nice(Math.max(Math.max(...values) - low, least));
  const x = (at) => left + ((at - from) / Math.max(to - from, 1)) * (WIDTH - left - 8);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - bottom - top);
  const svg = canvas(height, label);
  for (const part of [0, 0.5, 1]) {
    const value = low + part * (high - low);
    svg.append(shape("line", { class: "grid", x1: left, x2: WIDTH, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  }
  const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
  svg.append(shape("text", { x: left, y: height - 4 }, clock(from)));
  svg.append(shape("text", { x: WIDTH - 8, y: height - 4, "text-anchor": "end" }, clock(to)));
  for (const { points, kind = "line" } of list) {
    if (!points.length) continue;
    const path = points.map(([at, value], i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    if (kind === "area") {
      const end = `L${x(points.at(-1)[0]).toFixed(1)} ${y(low)}L${x(points[0][0]).toFixed(1)} ${y(low)}Z`;
      svg.append(shape("path", { class: "area", d: path + end }));
    }
    svg.append(shape("path", { class: kind === "second" ? "line second" : kind === "bad" ? "line stroke-bad" : "line", d: path }));
  }
  for (const { at, value, label: words } of dots) {
    const dot = shape("circle", { class: "bad", cx: x(at), cy: y(value), r: 4.5 });
    dot.append(shape("title", {}, words));
    svg.append(dot);
  }
  place.replaceChildren(svg, legend(list.map((line) => [line.tone, line.name]).concat(dots.length ? [["bad", "refused"]] : [])));
}
