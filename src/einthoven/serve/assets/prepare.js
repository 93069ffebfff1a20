// What a model needs in front of its graph: leads, the steps before the window, calls and answers.

import { Refusal } from "./refusal.js";
import { inverse, isConstant, mean, mixed, product } from "./signals.js";

// Some leads of a signal, {rate, rows, derived, missing}: limb leads that it lacks are computed from
// its first two. `shares` are those of I and II in every limb lead.
export function withLimbLeads({ leads, rows, rate }, wanted, shares) {
  const limb = Object.keys(shares);
  const pair = limb.filter((lead) => leads.includes(lead)).slice(0, 2);
  const derived = wanted.filter((lead) => !leads.includes(lead) && limb.includes(lead) && pair.length === 2);
  const missing = wanted.filter((lead) => !leads.includes(lead) && !derived.includes(lead));
  const row = (lead) => rows[leads.indexOf(lead)];
  const known = wanted.filter((lead) => !missing.includes(lead));
  const weights = pair.length === 2 ? product(derived.map((lead) => shares[lead]), inverse(pair.map((lead) => shares[lead]))) : [];
  const computed = weights.length ? mixed(weights, pair.map(row)) : [];
  return { rate, rows: known.map((lead) => (leads.includes(lead) ? row(lead) : computed[derived.indexOf(lead)])), derived, missing };
}

// The leads that a model reads; those that are constant count as missing. Refusal if one is left.
function leadsOf(signal, model) {
  const places = signal.rows.map((_, i) => i).filter((i) => !isConstant(signal.rows[i]));
  if (!places.length) throw new Refusal({ problem: "every lead is constant", remedy: "leave out the record; there is no signal in it" });
  const usable = { ...signal, leads: places.map((i) => signal.leads[i]), rows: places.map((i) => signal.rows[i]) };
  const whole = withLimbLeads(usable, model.leads, model.checks.limb_leads.shares);
  const { missing } = whole;
  if (missing.length) {
    const problem = missing.every((lead) => signal.leads.includes(lead)) ? "constant over the whole record" : "missing";
    throw new Refusal({ problem: `leads ${missing.join(", ")} are ${problem}`, remedy: "use the server, which goes without leads where that was measured" });
  }
  return whole;
}

const STEPS = {
  centre: (rows, rate) => ({
    rate,
    rows: rows.map((row) => {
      const middle = mean(row);
      return Float64Array.from(row, (value) => value - middle);
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

// Input of the graph, {rows, derived}, float32; Refusal for a record that it cannot take.
export function prepared(signal, model) {
  const whole = leadsOf(signal, model);
  let { rows, rate } = whole;
  for (const step of model.steps_before) ({ rows, rate } = STEPS[step.step](rows, rate, step));
  const samples = Math.max(rows[0].length, model.window);
  if (samples > rows[0].length && model.short !== "pad") {
    throw new Refusal({ problem: `the recording is shorter than ${model.window / rate} s`, remedy: "use a longer one" });
  }
  const padded = rows.map((row) => {
    const result = new Float32Array(samples);
    result.set(row);
    return result;
  });
  return { rows: padded, derived: whole.derived };
}

// First samples of the crops that the graph cuts from so many samples.
export function cropStarts(samples, { window, evaluation_crops: most }) {
  const room = samples - window;
  if (most === 1) return [Math.floor(room / 2)];
  const stride = Math.max(1, Math.floor(room / (most - 1)));
  return Array.from({ length: Math.min(most, room + 1) }, (_, i) => i * stride);
}

// The fields of an answer for the outputs of the graph, as those of `einthoven predict --json`.
// An unusable recording has no calls and no sets.
export function answerOf(values, uncalibrated, model, isUnusable) {
  const names = model.labels.map(({ name }) => name);
  const byName = (row) => Object.fromEntries(names.map((name, i) => [name, row[i]]));
  const sets = isUnusable ? null : model.sets;
  const widths = sets?.half_widths ?? [];
  const answer = {
    probabilities: model.form === "values" ? {} : byName(values),
    uncalibrated: model.calibrated && uncalibrated ? byName(uncalibrated) : null,
    thresholds: model.thresholds && byName(model.thresholds),
    answers: {},
    class_set: [],
    intervals: Object.fromEntries(widths.flatMap((width, i) => (width === null ? [] : [[names[i], [values[i] - width, values[i] + width]]]))),
    above_threshold: null,
    without_call: isUnusable ? names : [],
  };
  if (model.form === "values") return { ...answer, values: byName(values), units: model.units };
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]);
  if (model.form === "classes") {
    if (!isUnusable) answer.class = names[order[0]];
    const isPossible = (i) => values[i] === values[order[0]] || values[i] >= (sets.lowest[i] ?? 0);
    if (sets) answer.class_set = order.filter(isPossible).map((i) => names[i]);
    return answer;
  }
  if (!model.thresholds) return answer;
  const called = values.map((value, i) => value >= model.thresholds[i]);
  answer.above_threshold = isUnusable ? [] : order.filter((i) => called[i]).map((i) => names[i]);
  if (sets) {
    answer.answers = byName(values.map((value, i) => {
      const [low, high] = [sets.lowest[i], sets.highest[i]];
      if (low === null || high === null) return "";
      const isPresent = value >= low || called[i];
      const isAbsent = value <= high || !called[i];
      return isPresent === isAbsent ? "cannot tell" : isPresent ? "present" : "absent";
    }));
  }
  return answer;
}
