// Findings on a recording: the checks of records/quality.py in JavaScript. Their limits and the
// coefficients of the exchanges come from Python with the model. A signal is {rate, leads, rows}:
// millivolts as float32, without missing samples.

import { faultOf } from "./average-beat.js";
import { withLimbLeads } from "./prepare.js";
import {
  deviation, general, gram, inverse, isConstant, largestOf, mean, median, mixed, movingMean, product, quantile,
  runs, smallestOf, transposed, unit,
} from "./signals.js";

export const SERVER_ONLY = "missing samples, and what the device states about its leads";

const LEVELS = ["unusable", "doubt", "note"];
const UNLIKE_NAMES = ["flat", "no-signal", "lead-off", "dropouts", "identical-leads", "limb-leads", "unit"];

const duration = ({ rows, rate }) => rows[0].length / rate;
const total = (found) => found.reduce((sum, [start, stop]) => sum + stop - start + 1, 0);
const finding = (name, level, text, leads = []) => ({ name, level, text, leads });
const ofLeads = (name, level, leads, text) => finding(name, level, `${leads.join(" ")}: ${text}`, leads);
const chosen = (signal, holds) => signal.leads.filter((_, i) => holds(i));

// All findings, the gravest first. `checks` of the model holds limits and coefficients.
export function findingsOf(signal, { checks, leads, passes_offsets: passesOffsets }) {
  const limits = checks.quality;
  const independent = independentLeads(signal, checks);
  const flat = chosen(signal, (i) => isConstant(signal.rows[i]));
  const varying = signal.leads.map((lead, i) => ({ lead, row: signal.rows[i] })).filter(({ lead }) => !flat.includes(lead));
  const found = [];
  if (flat.length) found.push(ofLeads("flat", varying.length ? "doubt" : "unusable", flat, "constant throughout"));
  found.push(...identical(varying, independent, checks), ...limbLeads(varying, checks));
  if (varying.length) {
    const amplitude = amplitudeOf(varying, signal.rate, limits);
    const isPlausible = limits.SMALL <= amplitude.usual && amplitude.usual <= limits.LARGE;
    const looksLike = amplitude.usual >= limits.MICROVOLTS ? "uV" : amplitude.usual <= limits.VOLTS ? "V" : "mV";
    if (!isPlausible) found.push(wrongSize(amplitude.usual, looksLike));
    if (looksLike === "mV") found.push(...stretches(signal, varying, independent, isPlausible, checks));
    if (isPlausible) found.push(...dropouts(signal, limits), ...clipping(varying, amplitude, signal.rate, limits), ...artefacts(signal, varying, amplitude, limits));
  }
  if (independent && !found.some(({ name }) => UNLIKE_NAMES.includes(name))) {
    const exchange = electrodes(independent, checks);
    const fault = exchange.length ? undefined : faultOf(independent, signal.rate / stepOf(signal.rate, checks), checks.average_beat);
    found.push(...exchange, ...(fault ? [finding("beats", "doubt", fault.text)] : []));
  }
  const byLevel = () => found.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  byLevel();
  for (const each of found.filter(({ name }) => name === "offset" && passesOffsets)) {
    if (!each.leads.some((lead) => leads.includes(lead))) continue;
    each.level = "doubt";
    each.text += ", and the preparation removes no offsets: subtract them";
  }
  return byLevel();
}

// Texts of the findings that are more than notes.
export const warningsOf = (findings) =>
  findings.filter(({ level }) => level !== "note").map(({ level, text }) => (level === "unusable" ? "unusable, no calls: " : "") + text);

// A signal without the calibration pulse at its end, and the zeros around it.
export function withoutCalibration(signal, { MILLIVOLT, TOLERANCE, LEADS, LAST, PULSE, ZEROS }) {
  const { rows, rate } = signal;
  const first = Math.max(rows[0].length - Math.round(LAST * rate), 0);
  const isNear = (value) => (_, i) => rows.every((row) => Math.abs(row[first + i] - value) < TOLERANCE);
  const places = [...rows[0].subarray(first).keys()];
  const high = places.filter((i) => isNear(MILLIVOLT)(null, i));
  if (rows.length < LEADS || high.length < PULSE * rate) return signal;
  const zero = places.map((i) => isNear(0)(null, i));
  const start = zero.slice(0, high[0]).lastIndexOf(false) + 1;
  const isPulse = high.length === high.at(-1) - high[0] + 1 && zero.slice(high.at(-1) + 1).every(Boolean);
  if (!isPulse || high[0] - start < ZEROS * rate || !(first + start)) return signal;
  return { ...signal, rows: rows.map((row) => row.slice(0, first + start)) };
}

// ---------------------------------------------------------------- samples and leads

function stretches(signal, varying, independent, inParts, { quality: limits, electrodes: { LEADS } }) {
  const { rate } = signal;
  const parts = inParts ? [limits.NO_SIGNAL_PART, limits.LEAD_OFF_PART] : [limits.NO_SIGNAL, limits.LEAD_OFF];
  const resolution = Math.fround(limits.RESOLUTION);
  const still = varying.map(({ row }) => Uint8Array.from({ length: row.length - 1 }, (_, i) => Math.abs(Math.fround(row[i + 1] - row[i])) <= resolution));
  const constant = (mask, seconds, part) => {
    const found = runs(mask.length, (i) => mask[i], part * rate);
    const least = seconds * rate;
    if (total(found) >= least * Math.max(1, duration(signal) / 10)) return found;
    return found.filter(([start, stop]) => stop - start >= least);
  };
  const found = [];
  const common = constant(still[0].map((_, i) => still.every((mask) => mask[i])), limits.NO_SIGNAL, parts[0]);
  const inAll = total(common) / rate;
  const quiet = quietSeconds(signal, limits);
  const lost = Math.max(inAll, quiet.common);
  if (lost) {
    const isLarge = lost >= limits.NO_SIGNAL_SHARE * duration(signal);
    found.push(finding("no-signal", isLarge ? "unusable" : "doubt", `no ${quiet.common > inAll ? "beats" : "signal"} in any lead for ${general(lost)} of ${general(duration(signal))} s: padding, electrodes that came off, or a pause`));
  }
  for (const mask of still) for (const [start, stop] of common) mask.fill(0, start, stop);
  const seconds = Object.fromEntries(varying.map(({ lead }, i) => [lead, total(constant(still[i], limits.LEAD_OFF, parts[1])) / rate]));
  const off = signal.leads.filter((lead) => seconds[lead] > 0);
  const unrelated = unrelatedLeads(independent, LEADS, limits).filter((lead) => !off.includes(lead));
  const without = chosen(signal, (i) => quiet.single[i] > 0).filter((lead) => ![...off, ...unrelated].includes(lead));
  for (const [leads, text] of [
    [off, `constant for up to ${general(Math.max(...Object.values(seconds)))} s`],
    [signal.leads.filter((lead) => unrelated.includes(lead)), "nothing of the other leads' beats"],
    [without, `without beats for up to ${general(Math.max(...quiet.single))} s`],
  ]) if (leads.length) found.push(ofLeads("lead-off", "doubt", leads, text));
  return found;
}

// Seconds with noise in place of beats: in all leads at once, and in each lead besides.
function quietSeconds({ rows, rate }, { QUIET, QUIET_MV, QUIET_LEAD_MV, QUIET_SHARE }) {
  const half = Math.max(1, Math.round((QUIET * rate) / 2));
  const count = Math.floor(rows[0].length / half);
  if (count < 3) return { common: 0, single: rows.map(() => 0) };
  const deviations = rows.map((row) => {
    const middle = mean(row.subarray(0, count * half));
    const blocks = Array.from({ length: count }, (_, b) => Float64Array.from(row.subarray(b * half, (b + 1) * half), (value) => value - middle));
    const means = blocks.map(mean);
    const squares = blocks.map((block) => mean(block.map((value) => value ** 2)));
    return Array.from({ length: count - 1 }, (_, b) => Math.sqrt(Math.max(0, (squares[b + 1] + squares[b]) / 2 - ((means[b + 1] + means[b]) / 2) ** 2)));
  });
  const halves = (mask) => [...mask, false].reduce((sum, value, i) => sum + Number(value || Boolean(mask[i - 1])), 0);
  const largest = transposed(deviations).map(largestOf);
  const common = largest.map((value) => value < QUIET_MV && value < QUIET_SHARE * largestOf(largest));
  const single = deviations.map((row) => {
    const alone = row.map((value, i) => value < QUIET_LEAD_MV && value < QUIET_SHARE * largestOf(row) && !common[i]);
    return (halves(alone) * half) / rate;
  });
  return { common: (halves(common) * half) / rate, single };
}

// Chest leads that the others do not explain.
function unrelatedLeads(independent, names, { UNRELATED_LEAD }) {
  if (!independent) return [];
  const products = gram(independent.map(minusMean));
  const inverted = inverse(products.map((row, i) => row.map((value, j) => value / Math.sqrt(products[i][i] * products[j][j]) + 1e-6 * (i === j))));
  return names.filter((lead, i) => lead.startsWith("V") && 1 - 1 / inverted[i][i] < UNRELATED_LEAD);
}

function minusMean(row) {
  const middle = mean(row);
  return row.map((value) => value - middle);
}

// Samples that were lost and are zero, between values that are far from it.
function dropouts(signal, { LOST, FAR, FAR_LONG, FINE }) {
  const { rows, rate } = signal;
  const least = Math.max(LOST, 0.006 * rate);
  const counts = rows.map(() => 0);
  const samples = rows.map(() => 0);
  let long = 0;
  rows.forEach((row, place) => {
    for (const [start, stop] of runs(row.length, (i) => row[i] === 0, 1)) {
      const [before, after] = [row[start - 1] ?? NaN, row[stop] ?? NaN];
      const nearer = Math.min(Math.abs(before), Math.abs(after));
      const isShort = stop - start < least && nearer >= FAR && before > 0 === after > 0;
      const isLong = stop - start >= least && nearer >= FAR_LONG;
      counts[place] += isShort;
      long += isLong;
      if (isShort || isLong) samples[place] += stop - start;
    }
  });
  const resolution = Math.min(...rows.map((row) => row.reduce((least, value) => (value ? Math.min(least, Math.abs(value)) : least), Infinity)));
  const limit = Math.max(1, resolution / FINE) * Math.max(1, duration(signal) / 10);
  const sum = counts.reduce((a, b) => a + b);
  if (Math.max(...counts) < 5 * limit && sum < 12 * limit && long < 2 * limit) return [];
  const most = Math.max(...samples);
  const leads = chosen(signal, (i) => samples[i] >= Math.max(1, most / 5));
  return [ofLeads("dropouts", "doubt", leads, `values between others replaced by zeros, at ${most} samples or more`)];
}

function identical(varying, independent, { quality: { SAME_MV, SAME_SHARE }, electrodes: { LEADS } }) {
  const isSame = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);
  const repeated = varying.filter((one) => varying.some((other) => other !== one && isSame(one.row, other.row))).map(({ lead }) => lead);
  if (repeated.length) return [finding("identical-leads", "unusable", `${repeated.join(" ")} hold the same samples`, repeated)];
  if (!independent) return [];
  const products = gram(independent.map(minusMean)).map((row) => row.map((value) => value / independent[0].length));
  const isCopy = (i, j) => {
    if (i === j || (i < 2 && j < 2)) return false; // I and II are multiples if a limb lead has no signal
    const remainder = products[j][j] - products[i][j] ** 2 / Math.max(products[i][i], SAME_MV ** 2);
    return remainder < Math.min(SAME_MV ** 2, SAME_SHARE ** 2 * products[j][j]);
  };
  const copies = LEADS.filter((_, i) => products.some((__, j) => isCopy(i, j) || isCopy(j, i)));
  if (!copies.length) return [];
  return [finding("identical-leads", "doubt", `${copies.join(" ")} differ from a multiple of another by less than ${general(SAME_MV * 1000)} uV, as copies do`, copies)];
}

// What the laws of the limb leads leave unexplained.
function limbLeads(varying, { quality: limits, limb_leads: { HELD, shares } }) {
  const limb = Object.keys(shares).flatMap((name) => varying.filter(({ lead }) => lead === name));
  if (limb.length < 3) return [];
  const names = limb.map(({ lead }) => lead);
  const rows = limb.map(({ row }) => minusMean(Float64Array.from(row)));
  const laws = names.map((name) => shares[name]);
  const held = product(product(laws, inverse(product(transposed(laws), laws))), transposed(laws));
  const outside = unit(laws.length).map((row, i) => row.map((value, j) => value - held[i][j]));
  const products = gram(rows);
  const trace = (a) => a.reduce((sum, row, i) => sum + row[i], 0);
  const share = (change) => Math.sqrt(Math.max(trace(product(outside, product(product(change, products), transposed(change)))), 0) / trace(products));
  const before = share(unit(laws.length));
  const millivolts = Math.max(...mixed(outside, rows).map((row) => largestOf(row.map(Math.abs))));
  if (before < limits.CONTRADICTION || millivolts < limits.CONTRADICTION_MV) return [];
  const changes = [];
  names.forEach((name, i) => {
    for (let j = i + 1; j < names.length; j += 1) {
      const change = unit(names.length);
      [change[i], change[j]] = [change[j], change[i]];
      changes.push([[name, names[j]], change]);
    }
  });
  names.forEach((name, i) => {
    const change = unit(names.length);
    change[i][i] = -1;
    changes.push([[name], change]);
  });
  const holding = changes.filter(([, change]) => share(change) <= HELD).map(([leads]) => leads);
  const leads = holding.length === 1 ? holding[0] : [];
  const why = [": exchanged, or filtered or scaled apart", `; they would if ${leads[0]} were inverted`, `; they would if ${leads.join(" and ")} were exchanged`][leads.length];
  const level = leads.length || before >= limits.UNRELATED ? "unusable" : "doubt";
  return [finding("limb-leads", level, `the limb leads do not fit each other, by up to ${millivolts.toFixed(2)} mV${why}`, leads)];
}

// ---------------------------------------------------------------- amplitude and unit

function amplitudeOf(varying, rate, { BEYOND }) {
  const samples = varying[0].row.length;
  const second = Math.max(1, Math.min(Math.round(rate), samples));
  const logs = varying.map(({ row }) => {
    const average = movingMean(row, second);
    const steady = Float64Array.from(row, (value, i) => value - average[i]).sort();
    return Math.log(quantile(steady, 0.99) - quantile(steady, 0.01) + 1e-9);
  });
  const medians = varying.map(({ row }) => median(row));
  const beyond = varying.filter(({ row }, i) => Math.max(largestOf(row) - medians[i], medians[i] - smallestOf(row)) > BEYOND);
  return { usual: Math.exp(mean(logs)), medians, beyond: beyond.map(({ lead }) => lead) };
}

function wrongSize(usual, looksLike) {
  const text = `a lead has a usual range of ${general(usual)} mV, and about 1 mV in an ECG: check gain and units`;
  if (looksLike === "mV") return finding("amplitude", "doubt", text);
  const unitName = { uV: "microvolts", V: "volts" }[looksLike];
  return finding("unit", "unusable", `${text}; the values look like ${unitName} that are declared as millivolts`);
}

// Leads that stay at their extreme.
function clipping(varying, { medians }, rate, { RAIL_SHARE, RAIL_SAMPLES, RESOLUTION }) {
  const clipped = {};
  varying.forEach(({ lead, row }, place) => {
    const x = Float64Array.from(row, (value) => value - medians[place]);
    const extremes = [smallestOf(x), largestOf(x)];
    const largest = Math.max(...extremes.map(Math.abs));
    for (const extreme of extremes.filter((value) => Math.abs(value) >= 0.5 * largest)) {
      const samples = runs(x.length, (i) => Math.abs(x[i] - extreme) <= RESOLUTION / 2, RAIL_SAMPLES).reduce((sum, [start, stop]) => sum + stop - start, 0);
      if (samples >= RAIL_SHARE * x.length) clipped[lead] = samples / rate;
    }
  });
  const leads = Object.keys(clipped);
  if (!leads.length) return [];
  return [finding("clipping", "doubt", `${leads.join(" ")}: at an extreme for ${general(Math.max(...Object.values(clipped)), 2)} s in all, cut off`, leads)];
}

// ---------------------------------------------------------------- artefacts

function artefacts(signal, varying, { medians, beyond }, limits) {
  const found = [];
  if (beyond.length) found.push(ofLeads("artefact", "doubt", beyond, `further than ${limits.BEYOND} mV from the median`));
  const away = varying.map(({ lead }, i) => [lead, Math.abs(medians[i])]).filter(([, size]) => size >= limits.OFFSET);
  if (away.length) found.push(ofLeads("offset", "note", away.map(([lead]) => lead), `at rest up to ${Math.max(...away.map(([, size]) => size)).toFixed(2)} mV from zero (offset)`));
  for (const [name, sizes, [noted, doubted]] of [
    ["baseline-wander", signal.rows.map((row) => wander(row, signal.rate)), limits.WANDER],
    ["noise", signal.rows.map((row) => noise(row, signal.rate)), limits.NOISE],
  ]) {
    const leads = chosen(signal, (i) => sizes[i] >= noted);
    const isCommon = sizes.filter((size) => size >= doubted).length >= 0.5 * sizes.length;
    if (leads.length) found.push(ofLeads(name, isCommon ? "doubt" : "note", leads, `${name.replace("-", " ")} of up to ${general(Math.max(...sizes), 2)} mV`));
  }
  return [...found, ...mainsHum(signal, limits)];
}

// 50 or 60 Hz as a line above its neighbours in the spectrum.
function mainsHum({ leads, rows, rate }, { MAINS, SECONDS, HUM_MV, HUM_RATIO }) {
  const samples = rows[0].length;
  if (rate < 2 * MAINS[0] + 12 || samples < SECONDS * rate) return [];
  const turn = (call) => Float64Array.from({ length: samples }, (_, i) => call((2 * Math.PI * i) / samples));
  const [cos, sin] = [turn(Math.cos), turn(Math.sin)];
  const hann = Float64Array.from({ length: samples }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (samples - 1)));
  const scale = 2 / hann.reduce((a, b) => a + b, 0);
  const windowed = rows.map((row) => Float64Array.from(row)).map(minusMean).map((row) => row.map((value, i) => value * hann[i]));
  const amplitude = (row, bin) => {
    let [real, imaginary] = [0, 0];
    for (let n = 0, i = 0; n < samples; n += 1, i += bin, i -= i >= samples ? samples : 0) {
      real += row[n] * cos[i];
      imaginary += row[n] * sin[i];
    }
    return Math.hypot(real, imaginary) * scale;
  };
  const last = samples >> 1; // bins as in Python, from 0 to half of the rate
  const hums = MAINS.filter((frequency) => rate >= 2 * frequency + 12).map((frequency) => {
    const bins = Array.from({ length: last + 1 }, (_, bin) => bin).filter((bin) => Math.abs((bin * rate) / 2 / last - frequency) <= 6);
    const distance = bins.map((bin) => Math.abs((bin * rate) / 2 / last - frequency));
    const sizes = windowed.map((row) => {
      const all = bins.map((bin) => amplitude(row, bin));
      const around = median(all.filter((_, i) => distance[i] >= 2));
      const size = Math.max(...all.filter((_, i) => distance[i] <= 0.5));
      return size >= Math.max(HUM_MV, HUM_RATIO * around) ? size : 0;
    });
    return { frequency, sizes, largest: Math.max(...sizes) };
  }).filter(({ largest }) => largest > 0).sort((a, b) => b.largest - a.largest);
  return hums.slice(0, 1).map(({ frequency, sizes, largest }) => ofLeads("mains-hum", "note", leads.filter((_, i) => sizes[i]), `${frequency} Hz mains hum, up to ${largest.toFixed(2)} mV`));
}

// Range of the medians of seconds within ten of them, mV.
function wander(row, rate) {
  const second = Math.max(1, Math.round(rate));
  const count = Math.floor(row.length / second);
  if (count < 3) return 0;
  const medians = Array.from({ length: count }, (_, i) => median(row.subarray(i * second, (i + 1) * second)));
  const length = Math.min(count, 10);
  const ranges = Array.from({ length: Math.floor(count / length) }, (_, i) => {
    const part = medians.slice(i * length, (i + 1) * length);
    return largestOf(part) - smallestOf(part);
  });
  return median(ranges);
}

// Standard deviation of noise above some 25 Hz, mV.
function noise(row, rate) {
  const step = Math.max(1, Math.round(0.01 * rate));
  if (row.length <= 2 * step) return 0;
  const distances = Float64Array.from({ length: row.length - 2 * step }, (_, i) => Math.abs(row[i + step] - (row[i] + row[i + 2 * step]) / 2));
  return median(distances) / (0.6745 * Math.sqrt(1.5));
}

// ---------------------------------------------------------------- electrodes

const stepOf = (rate, { electrodes: { RATE } }) => Math.max(1, Math.round(rate / RATE));

// The eight independent leads at about 100 Hz without their mean over 1 s, or null.
function independentLeads(signal, checks) {
  const whole = withLimbLeads(signal, checks.electrodes.LEADS, checks.limb_leads.shares);
  if (whole.missing.length || whole.rows.some(isConstant)) return null;
  const step = stepOf(signal.rate, checks);
  return whole.rows.map((row) => {
    const x = Float64Array.from({ length: Math.floor(row.length / step) }, (_, i) => mean(row.subarray(i * step, (i + 1) * step)));
    const average = movingMean(x, Math.max(1, Math.round(signal.rate / step)));
    return x.map((value, i) => value - average[i]);
  });
}

function electrodes(rows, { electrodes: { HARDLY_ANY, exchanges } }) {
  const limb = { I: rows[0], II: rows[1], III: rows[1].map((value, i) => value - rows[0][i]) };
  const sizes = Object.entries(limb).map(([lead, row]) => [lead, deviation(row)]).sort((a, b) => a[1] - b[1]);
  if (sizes[0][1] < HARDLY_ANY * sizes[2][1]) {
    const [lead] = sizes[0];
    return [finding("electrodes", "doubt", `${lead} has hardly any signal: the right leg's electrode seems to be elsewhere`, [lead])];
  }
  const scores = (x) => {
    const inputs = [...features(x), 1];
    return exchanges.map(({ weights }) => weights.reduce((sum, weight, i) => sum + weight * inputs[i], 0));
  };
  const first = scores(rows);
  const candidates = exchanges.filter((_, i) => first[i] >= 0)
    .map((exchange) => ({ ...exchange, remainder: Math.max(...scores(mixed(exchange.inverse, rows))) }))
    .sort((a, b) => a.remainder - b.remainder);
  return candidates.slice(0, 1).map(({ text, leads }) => finding("electrodes", "doubt", text, leads));
}

// Correlations of all pairs, relative sizes and skewness.
function features(rows) {
  const covariance = gram(rows).map((row) => row.map((value) => value / rows[0].length));
  const sizes = covariance.map((row, i) => Math.sqrt(row[i]) + 1e-9);
  const logs = sizes.map(Math.log);
  const skewness = rows.map((row, i) => mean(row.map((value) => value ** 3)) / sizes[i] ** 3);
  return [
    ...covariance.flatMap((row, i) => row.slice(i + 1).map((value, k) => value / sizes[i] / sizes[i + 1 + k])),
    ...logs.map((value) => value - mean(logs)),
    ...skewness.map((value) => Math.sign(value) * Math.log1p(Math.abs(value))),
  ];
}
