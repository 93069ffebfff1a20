// What a model needs in front of its graph: leads, the steps before the window, calls and answers.

import { Refusal } from "./refusal.js";

// Limb leads that follow from two others.
function withLimbLeads({ leads, rows, rate }, wanted) {
  const row = (name) => rows[leads.indexOf(name)];
  const [one, two] = [row("I"), row("II")];
  const rules = { III: (i) => two[i] - one[i], aVR: (i) => -(one[i] + two[i]) / 2, aVL: (i) => one[i] - two[i] / 2, aVF: (i) => two[i] - one[i] / 2 };
  const derived = wanted.filter((lead) => !leads.includes(lead) && one && two && rules[lead]);
  const missing = wanted.filter((lead) => !leads.includes(lead) && !derived.includes(lead));
  if (missing.length) throw new Refusal({ problem: `leads ${missing.join(", ")} are missing`, remedy: "use the server, which goes without leads where that was measured" });
  const all = wanted.map((lead) => (leads.includes(lead) ? row(lead) : Float64Array.from(one, (_, i) => rules[lead](i))));
  const flat = wanted.filter((_, place) => all[place].every((value) => value === all[place][0]));
  if (flat.length) throw new Refusal({ problem: `${flat.join(", ")} constant over the whole record`, remedy: "use another recording" });
  return { rate, rows: all, derived };
}

const STEPS = {
  centre: (rows, rate) => ({
    rate,
    rows: rows.map((row) => {
      const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
      return row.map((value) => value - mean);
    }),
  }),
  resample: (rows, rate, step) => {
    const samples = Math.floor((rows[0].length * step.rate) / rate);
    return { rate: step.rate, rows: rate === step.rate ? rows : rows.map((row) => resampled(row, samples)) };
  },
};

// Band-limited periodic interpolation, as scipy.signal.resample.
export function resampled(row, samples) {
  const old = row.length;
  const shared = Math.min(old, samples);
  const bins = Math.floor(shared / 2) + 1;
  const waves = (length) => Float64Array.from({ length }, (_, i) => Math.cos((2 * Math.PI * i) / length));
  const sines = (length) => Float64Array.from({ length }, (_, i) => Math.sin((2 * Math.PI * i) / length));
  const [cosIn, sinIn, cosOut, sinOut] = [waves(old), sines(old), waves(samples), sines(samples)];
  const result = new Float64Array(samples);
  for (let k = 0; k < bins; k += 1) {
    let real = 0;
    let imaginary = 0;
    for (let n = 0, i = 0; n < old; n += 1, i += k, i -= i >= old ? old : 0) {
      real += row[n] * cosIn[i];
      imaginary -= row[n] * sinIn[i];
    }
    let weight = (k === 0 ? 1 : 2) / old;
    if (shared % 2 === 0 && k === shared / 2) weight = (samples < old ? 2 : 1) / old; // Nyquist bin
    for (let n = 0, i = 0; n < samples; n += 1, i += k, i -= i >= samples ? samples : 0) {
      result[n] += weight * (real * cosOut[i] - imaginary * sinOut[i]);
    }
  }
  return result;
}

// Input of the graph, {data, samples, derived}; Refusal for a record that it cannot take.
export function prepared(signal, model) {
  const whole = withLimbLeads(signal, model.leads);
  let { rows, rate } = whole;
  for (const step of model.steps_before) ({ rows, rate } = STEPS[step.step](rows, rate, step));
  let samples = rows[0].length;
  if (samples < model.window) {
    if (model.short !== "pad") throw new Refusal({ problem: `the recording is shorter than ${model.window / rate} s`, remedy: "use a longer one" });
    samples = model.window;
  }
  const data = new Float32Array(rows.length * samples);
  rows.forEach((row, place) => data.set(row, place * samples));
  return { data, samples, derived: whole.derived };
}

// The fields of an answer for the outputs of the graph.
export function answerOf(values, model) {
  const names = model.labels.map(({ name }) => name);
  const byName = (row) => Object.fromEntries(names.map((name, i) => [name, row[i]]));
  if (model.form === "values") {
    return { probabilities: {}, values: byName(values), units: model.units };
  }
  if (model.form === "classes") {
    const best = values.indexOf(Math.max(...values));
    return { probabilities: byName(values), class: names[best] };
  }
  const { thresholds, sets } = model;
  const called = values.map((value, i) => thresholds !== null && value >= thresholds[i]);
  const answers = !sets ? {} : byName(values.map((value, i) => {
    const [low, high] = [sets.lowest[i], sets.highest[i]];
    if (low === null || high === null) return "";
    const isPresent = value >= low || called[i];
    const isAbsent = value <= high || !called[i];
    return isPresent === isAbsent ? "cannot tell" : isPresent ? "present" : "absent";
  }));
  const above = names.filter((_, i) => called[i]);
  return { probabilities: byName(values), thresholds: thresholds ? byName(thresholds) : null, above_threshold: above, answers };
}
