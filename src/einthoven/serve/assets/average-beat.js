// The average beat: inverted, reversed or of another sampling rate, as records/beats.py.

import { deviation, largestOf, mean } from "./signals.js";

// The fault that eight independent leads with a sampling rate look like, {text}, or undefined.
export function faultOf(rows, rate, constants) {
  const { LEAST, MOST, RATE, faults } = constants;
  const x = rows.map((row) => atRate(row, rate, RATE).subarray(0, Math.round(MOST * RATE)));
  if (x[0].length < LEAST * RATE) return undefined;
  const inputs = [...features(x, constants), 1];
  const scores = faults.map(({ weights }) => weights.reduce((sum, weight, i) => sum + weight * inputs[i], 0));
  const best = scores.indexOf(Math.max(...scores));
  return scores[best] >= 0 ? faults[best] : undefined;
}

function atRate(row, rate, wanted) {
  if (rate === wanted) return row;
  const count = Math.floor(((row.length - 1) * wanted) / rate) + 1;
  return Float64Array.from({ length: count }, (_, i) => {
    const time = (i * rate) / wanted;
    const before = Math.min(Math.floor(time), Math.max(row.length - 2, 0));
    const after = Math.min(before + 1, row.length - 1);
    return row[before] + (time - before) * (row[after] - row[before]);
  });
}

function features(rows, { LAGS, SHIFTS, BANDS, RATE, SHORTEST, LONGEST }) {
  const x = rows.map((row) => {
    const size = deviation(row) + 1e-9;
    return row.map((value) => value / size);
  });
  const samples = x[0].length;
  const margin = LAGS.at(-1);
  const steepness = Float64Array.from({ length: samples }, (_, i) => (i === 0 || i === samples - 1 ? 0 : x.reduce((sum, row) => sum + (row[i + 1] - row[i - 1]) ** 2, 0)));
  const large = Float64Array.from(steepness).sort()[Math.round(0.98 * samples)] + 1e-9;
  const weight = steepness.map((value) => Math.min(value / large, 1) ** 2);
  const inner = weight.subarray(margin, samples - margin);
  const total = inner.reduce((a, b) => a + b, 0) + 1e-9;
  const beat = x.map((row) => LAGS.map((lag) => inner.reduce((sum, value, i) => sum + value * row[margin + lag + i], 0) / total));
  const correlation = (row, lag) => {
    let sum = 0;
    for (let i = 0; i + lag < row.length; i += 1) sum += row[i] * row[i + lag];
    return sum;
  };
  const alike = (lag) => x.reduce((sum, row) => sum + correlation(row, lag), 0);

  const length = 2 ** (Math.floor(Math.log2(samples + LONGEST)) + 1);
  const power = new Float64Array(length / 2 + 1);
  for (const row of x) spectrum(row, length).forEach((value, i) => { power[i] += value; });
  const edges = BANDS.map((frequency) => Math.ceil((frequency * length) / RATE));
  const bands = edges.map((edge, i) => power.subarray(edge, edges[i + 1] ?? power.length).reduce((a, b) => a + b, 0));
  const inBands = bands.reduce((a, b) => a + b, 0) + 1e-9;

  const middle = mean(weight);
  const centred = weight.map((value) => value - middle);
  const rhythm = Float64Array.from({ length: LONGEST - SHORTEST }, (_, i) => correlation(centred, SHORTEST + i));
  const best = rhythm.indexOf(largestOf(rhythm));
  return [
    ...beat.flat(),
    ...LAGS.map((_, i) => Math.log(Math.sqrt(mean(beat.map((row) => row[i] ** 2))) + 0.02)),
    ...SHIFTS.map((lag) => alike(lag) / (alike(0) + 1e-9)),
    ...bands.map((value) => Math.log(value / inBands + 1e-6)),
    Math.log(SHORTEST + best),
    rhythm[best] / (correlation(centred, 0) + 1e-9),
    weight.filter((value) => value > 0.3).length / samples,
  ];
}

// Squared magnitudes of the Fourier transform of a row with zeros behind it, up to half of `length`,
// a power of two.
function spectrum(row, length) {
  const real = new Float64Array(length);
  const imaginary = new Float64Array(length);
  const bits = Math.log2(length);
  row.forEach((value, i) => {
    let place = 0;
    for (let bit = 0; bit < bits; bit += 1) place |= ((i >> bit) & 1) << (bits - 1 - bit);
    real[place] = value;
  });
  for (let half = 1; half < length; half *= 2) {
    for (let k = 0; k < half; k += 1) {
      const [cos, sin] = [Math.cos((Math.PI * k) / half), -Math.sin((Math.PI * k) / half)];
      for (let i = k; i < length; i += 2 * half) {
        const j = i + half;
        const [a, b] = [real[j] * cos - imaginary[j] * sin, real[j] * sin + imaginary[j] * cos];
        [real[j], imaginary[j]] = [real[i] - a, imaginary[i] - b];
        real[i] += a;
        imaginary[i] += b;
      }
    }
  }
  return real.subarray(0, length / 2 + 1).map((value, i) => value ** 2 + imaginary[i] ** 2);
}
