// Beats and their P, QRS, ST-T and TP windows: einthoven's explain/beats.py in JavaScript. The
// filter and all widths come from Python with the model, for the sampling rate of its window.

import { largestOf, median, movingMean, reflected } from "./signals.js";

const WAVES = ["P", "QRS", "ST-T", "TP"];

// Second-order sections forwards and backwards, as scipy.signal.sosfiltfilt.
function filtered(row, { sections, initial, padding }) {
  const last = row.length - 1;
  const extended = Float64Array.from({ length: row.length + 2 * padding }, (_, k) => {
    const i = k - padding;
    if (i < 0) return 2 * row[0] - row[-i];
    return i > last ? 2 * row[last] - row[2 * last - i] : row[i];
  });
  const pass = (x) => {
    const start = x[0];
    return sections.reduce((input, [b0, b1, b2, , a1, a2], section) => {
      let [one, two] = initial[section].map((value) => value * start);
      return input.map((value) => {
        const result = b0 * value + one;
        one = b1 * value - a1 * result + two;
        two = b2 * value - a2 * result;
        return result;
      });
    }, x);
  };
  return pass(pass(extended).reverse()).reverse().slice(padding, padding + row.length);
}

// Local maxima, the highest first, none closer to a higher one than `distance`; ascending.
function peaksOf(row, distance) {
  const at = (i) => row[i] ?? 0;
  const places = [];
  for (let i = 0; i < row.length; i += 1) {
    if (at(i) <= at(i - 1)) continue;
    let end = i;
    while (end + 1 < row.length && row[end + 1] === row[i]) end += 1;
    if (at(end + 1) < row[i]) places.push((i + end) >> 1);
    i = end;
  }
  const kept = [];
  for (const place of [...places].sort((a, b) => row[b] - row[a])) {
    if (kept.every((other) => Math.abs(other - place) >= distance)) kept.push(place);
  }
  return kept.sort((a, b) => a - b);
}

// Times of the R peaks of leads, s, ascending.
export function rPeaks(rows, rate, beats) {
  const samples = rows[0].length;
  if (samples < rate || !beats.sections) return [];
  const energy = new Float64Array(samples);
  for (const row of rows) filtered(row.map((value) => value - row[0]), beats).forEach((value, i) => { energy[i] += value * value; });
  const smooth = movingMean(energy, Math.max(1, Math.round(beats.SMOOTHING * rate)), reflected);
  const envelope = smooth.map((value) => Math.sqrt(Math.max(value, 0)));
  const places = peaksOf(envelope, Math.max(1, Math.round(beats.REFRACTORY * rate)));
  if (!places.length) return [];
  const heights = Float64Array.from(places, (place) => envelope[place]).sort();
  const usual = median(heights.slice(-Math.max(1, Math.round(samples / rate))));
  const high = places.filter((place) => envelope[place] >= Math.max(beats.HEIGHT * usual, 1e-9));
  const found = [];
  for (const place of high) { // without T waves
    const before = found.at(-1);
    const isClose = found.length > 0 && place - before < beats.T_WAVE * rate;
    if (!isClose || envelope[place] >= beats.T_HEIGHT * envelope[before]) found.push(place);
  }
  const half = Math.max(1, Math.round(0.06 * rate));
  return found.map((place) => {
    const first = Math.max(0, place - half);
    const part = energy.subarray(first, place + half + 1);
    return (first + part.indexOf(largestOf(part))) / rate;
  });
}

// Windows of all beats, {wave, beat, start, end (s)}: a partition of the recording.
export function segments(peaks, end, { P_START, P_SHARE, QRS_START, QRS_END, T_END }) {
  const startOfP = (before, peak) => {
    const latest = before === undefined ? -Infinity : before + P_SHARE * (peak - before);
    return Math.min(Math.max(peak + P_START, latest), peak + QRS_START);
  };
  const bounds = [["TP", 0, 0]];
  peaks.forEach((peak, place) => {
    const beat = place + 1;
    bounds.push(["P", beat, startOfP(peaks[place - 1], peak)], ["QRS", beat, peak + QRS_START], ["ST-T", beat, peak + QRS_END]);
    const following = beat < peaks.length ? startOfP(peak, peaks[beat]) : Infinity;
    if (peak + T_END < following) bounds.push(["TP", beat, peak + T_END]);
  });
  const starts = bounds.map(([, , start]) => Math.min(Math.max(start, 0), end));
  return bounds
    .map(([wave, beat], i) => ({ wave, beat, start: starts[i], end: starts[i + 1] ?? end }))
    .filter((part) => part.end > part.start);
}

// Number of the window of a time, s.
export function segmentOf(parts, time) {
  let place = 0;
  while (place + 1 < parts.length && parts[place + 1].start <= time) place += 1;
  return place;
}

const NAMES = { P: "P windows", QRS: "QRS", "ST-T": "ST-T", TP: "pauses between beats" };
const CHEST = ["V1", "V2", "V3", "V4", "V5", "V6"];
const MOST_LEADS = 3;
const ENOUGH = 0.8; // of a wave's share, from which on a phrase needs no further lead

// The largest share of the evidence in words, as explain/shares.py. `sums` has a row a window with
// a sum a lead.
export function inWords(sums, parts, leads) {
  const positive = sums.map((row) => row.map((value) => Math.max(value, 0)));
  const all = positive.flat().reduce((a, b) => a + b, 0);
  if (!all) return "no evidence for the label";
  const ofWave = (wave) => leads.map((_, i) => positive.reduce((sum, row, j) => sum + (parts[j].wave === wave ? row[i] : 0), 0) / all);
  const whole = (row) => row.reduce((a, b) => a + b, 0);
  const shares = WAVES.map(ofWave);
  const best = shares.reduce((most, row, i) => (whole(row) > whole(shares[most]) ? i : most), 0);
  const byLead = shares[best];
  const order = leads.map((_, i) => i).sort((a, b) => byLead[b] - byLead[a]);
  let count = 0;
  let sum = 0;
  do {
    sum += byLead[order[count]];
    count += 1;
  } while (count < Math.min(MOST_LEADS, leads.length) && sum < ENOUGH * whole(byLead));
  const named = listed(order.slice(0, count).map((i) => leads[i]), leads);
  return `${(100 * sum).toFixed(0)} % in the ${NAMES[WAVES[best]]} of ${named}`;
}

// Names in the order of the leads; three neighbouring chest leads as `V1 to V3`.
function listed(names, leads) {
  const runs = [];
  for (const lead of leads.filter((each) => names.includes(each))) {
    const before = runs.at(-1)?.at(-1);
    if (before && CHEST.includes(lead) && CHEST[CHEST.indexOf(lead) - 1] === before) runs.at(-1).push(lead);
    else runs.push([lead]);
  }
  const texts = runs.flatMap((run) => (run.length > 2 ? [`${run[0]} to ${run.at(-1)}`] : run));
  return texts.length > 1 ? `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}` : texts[0];
}
