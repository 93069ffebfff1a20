// An ECG on millimetre paper: one SVG whose unit is a millimetre.

const SVG = "http://www.w3.org/2000/svg";
const SHEET = [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"], ["II"]];
const LEFT = 10; // mm, for the calibration pulse
const WIDTH = 250; // mm of signal
const NAME = 3.2; // mm, height of a lead's name, which has
const READABLE = 11; // pixels or more
const LEVELS = [0.2, 0.4, 0.6, 0.8]; // opacity of an attribution
const SMOOTH = 4; // buckets of 10 ms

// A signal of an answer: millivolts of each lead, centred on its median; NaN is missing.
export function decoded(signal) {
  if (signal.rows) return { ...signal, rows: signal.rows.map((row) => centred(Float32Array.from(row))) };
  const rows = signal.samples.map((text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
      const count = view.getInt16(2 * i, true);
      return count === signal.missing ? NaN : count / 1000;
    });
  });
  return { rate: signal.rate, leads: signal.leads, rows: rows.map(centred) };
}

export function centred(row) {
  const finite = row.filter(Number.isFinite).sort();
  const middle = finite.length ? finite[finite.length >> 1] : 0;
  return row.map((value) => value - middle);
}

export const seconds = (signal) => signal.rows[0].length / signal.rate;

export function fitsSheet(signal) {
  return seconds(signal) >= 10 && SHEET.flat().every((lead) => signal.leads.includes(lead));
}

// Strips of a lead by row: {lead, from, to (s), x (mm)}.
function stripsOf(signal, { layout, speed, start, shown }) {
  const span = WIDTH / speed;
  if (layout === "sheet") {
    return SHEET.map((row) =>
      row.map((lead, i) => ({
        lead,
        from: start + (i * span) / row.length,
        to: start + ((i + 1) * span) / row.length,
        x: LEFT + (i * WIDTH) / row.length,
      })).filter((strip) => shown.has(strip.lead)),
    ).filter((row) => row.length);
  }
  const leads = signal.leads.filter((lead) => shown.has(lead));
  return leads.map((lead) => [{ lead, from: start, to: start + span, x: LEFT }]);
}

function heights(signal, strip, gain) {
  const row = signal.rows[signal.leads.indexOf(strip.lead)];
  const first = Math.round(strip.from * signal.rate);
  return row.subarray(first, Math.round(strip.to * signal.rate) + 1).map((value) => value * gain);
}

function reach(values, quantile = 0.999) {
  const finite = values.filter(Number.isFinite).sort();
  return finite.length ? Math.max(0, finite[Math.floor(quantile * (finite.length - 1))]) : 0;
}

const square = (millimetres) => 5 * Math.ceil(millimetres / 5);

// Draw a signal. Options: layout (sheet, rows), speed (mm/s), gain (mm/mV), start (s), shown (set of
// leads), attribution (an answer of /explain, or none), scale (pixels per mm; 0 for true size).
export function draw(signal, options) {
  const rows = stripsOf(signal, options);
  const pixels = options.scale;
  let height = 0;
  const baselines = rows.map((row) => {
    const all = row.map((strip) => heights(signal, strip, options.gain));
    const above = Math.max(options.gain, ...all.map((values) => reach(values)));
    const below = Math.max(0, ...all.map((values) => reach(values.map((value) => -value))));
    const baseline = height + square(Math.min(above, 35) + 4);
    height = baseline + square(Math.min(below, 25) + 3);
    return baseline;
  });
  height = Math.max(height, 20);
  const width = LEFT + WIDTH + 5;
  const svg = node("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width: pixels ? Math.round(width * pixels) : `${width}mm`,
    height: pixels ? Math.round(height * pixels) : `${height}mm`,
    role: "img",
    "aria-label": `ECG, leads ${[...options.shown].join(", ")}, ${options.speed} mm/s, ${options.gain} mm/mV`,
  });
  svg.append(node("rect", { class: "ground", width, height }));
  for (const [name, step] of [["fine", 1], ["coarse", 5]]) {
    svg.append(node("path", { class: name, d: grid(width, height, step) }));
  }
  rows.forEach((row, i) => {
    const y = baselines[i];
    const pulse = 0.2 * options.speed;
    svg.append(node("path", {
      class: "trace",
      d: `M1 ${y}h1v${-options.gain}h${pulse}v${options.gain}h1`,
    }));
    for (const strip of row) {
      const values = heights(signal, strip, options.gain);
      const step = options.speed / signal.rate;
      if (options.attribution) {
        svg.append(...shades(options.attribution, strip, values, step, y));
      }
      svg.append(node("path", { class: "trace", "data-lead": strip.lead, d: line(values, strip.x, step, y) }));
      const name = node("text", { x: strip.x + 1, y: y - Math.min(Math.max(reach(values.subarray(0, 60), 1) + 1.5, 6), 16) });
      name.textContent = strip.lead;
      if (pixels) name.style.fontSize = `${Math.max(NAME, READABLE / pixels)}px`;
      svg.append(name);
    }
  });
  return svg;
}

function node(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function grid(width, height, step) {
  let path = "";
  for (let x = 0; x <= width; x += step) path += `M${x} 0V${height}`;
  for (let y = 0; y <= height; y += step) path += `M0 ${y}H${width}`;
  return path;
}

function line(values, x, step, y, inside = () => true) {
  let path = "";
  let isDrawn = false;
  values.forEach((value, i) => {
    const isPoint = Number.isFinite(value) && inside(i);
    if (isPoint) path += `${isDrawn ? "L" : "M"}${(x + i * step).toFixed(2)} ${(y - value).toFixed(2)}`;
    isDrawn = isPoint;
  });
  return path;
}

// Colour under a strip, in four shades each; the full one is that of the largest magnitudes.
function shades(attribution, strip, values, step, y) {
  const place = attribution.leads.indexOf(strip.lead);
  if (place < 0) return [];
  const steps = attribution.steps ?? (attribution.steps = levels(attribution.values));
  const bucket = (i) => Math.floor((strip.from + (i * (strip.to - strip.from)) / values.length) * attribution.rate);
  const paths = [];
  for (const [name, sign] of [["for", 1], ["against", -1]]) {
    for (let level = 1; level <= LEVELS.length; level += 1) {
      const inside = (i) => [i, i - 1].some((j) => steps[place][bucket(j)] === sign * level);
      const d = line(values, strip.x, step, y, inside);
      if (d) paths.push(node("path", { class: name, opacity: LEVELS[level - 1], d }));
    }
  }
  return paths;
}

function levels(values) {
  const smooth = values.map((row) =>
    row.map((_, i) => {
      const part = row.slice(Math.max(0, i - SMOOTH / 2), i + SMOOTH / 2);
      return part.reduce((sum, value) => sum + value, 0) / SMOOTH;
    }),
  );
  const magnitudes = smooth.flat().map(Math.abs).sort((a, b) => a - b);
  const largest = magnitudes[Math.floor(0.995 * (magnitudes.length - 1))] || 1;
  const limit = LEVELS.length;
  return smooth.map((row) =>
    row.map((value) => Math.max(-limit, Math.min(limit, Math.round((limit * value) / largest)))),
  );
}

// Calipers on the paper: by pointer and by keyboard. `report` gets the text of the measurement.
export function addCalipers(paper, settings, report) {
  let ends = null; // [x, y] of two corners, mm
  let box = null;
  let isDragging = false;

  function show() {
    const svg = paper.querySelector("svg");
    box?.remove();
    if (!ends || !svg) return report("");
    const [[ax, ay], [bx, by]] = ends;
    box = node("rect", {
      class: "calipers", x: Math.min(ax, bx), y: Math.min(ay, by),
      width: Math.abs(bx - ax), height: Math.abs(by - ay),
    });
    svg.append(box);
    const { speed, gain } = settings();
    const time = Math.abs(bx - ax) / speed;
    const rate = time > 0.2 ? ` (${Math.round(60 / time)}/min)` : "";
    report(`${Math.round(1000 * time)} ms${rate}, ${(Math.abs(by - ay) / gain).toFixed(2)} mV`);
  }

  function place(event) {
    const svg = paper.querySelector("svg");
    const bounds = svg.getBoundingClientRect();
    const size = svg.viewBox.baseVal;
    return [
      ((event.clientX - bounds.left) / bounds.width) * size.width,
      ((event.clientY - bounds.top) / bounds.height) * size.height,
    ];
  }

  paper.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" && !event.isPrimary) return;
    if (!event.target.closest("svg")) return;
    ends = [place(event), place(event)];
    isDragging = true;
    show();
  });
  paper.addEventListener("pointermove", (event) => {
    if (!isDragging) return;
    ends[1] = place(event);
    show();
  });
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, () => { isDragging = false; });
  }
  paper.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") {
      ends = null;
      show();
    } else if (moves[event.key]) {
      event.preventDefault();
      ends ??= [[40, 20], [60, 20]];
      const end = ends[event.shiftKey ? 0 : 1];
      moves[event.key].forEach((step, axis) => { end[axis] += step; });
      show();
    }
  });
  return { clear: () => { ends = null; show(); } };
}
