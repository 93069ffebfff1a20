// Arithmetic on leads that quality.js, beats.js and prepare.js share. A row is a typed array.

export const general = (value, digits = 3) => String(Number(value.toPrecision(digits))); // as %g

export const mean = (row) => row.reduce((sum, value) => sum + value, 0) / row.length;

export const largestOf = (row) => row.reduce((a, b) => Math.max(a, b), -Infinity);

export const smallestOf = (row) => row.reduce((a, b) => Math.min(a, b), Infinity);

export const isConstant = (row) => row.every((value) => value === row[0]);

export function deviation(row) {
  const middle = mean(row);
  return Math.sqrt(row.reduce((sum, value) => sum + (value - middle) ** 2, 0) / row.length);
}

export function median(row) {
  const sorted = Float64Array.from(row).sort();
  return (sorted[row.length >> 1] + sorted[(row.length - 1) >> 1]) / 2;
}

// Linear interpolation between the values of a sorted row, as numpy.quantile.
export function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

// Place of a sample before the first or behind the last one: repeated ends, and mirrored samples.
const nearest = (i, length) => Math.min(Math.max(i, 0), length - 1);
export const reflected = (i, length) => (i < 0 ? -i - 1 : i >= length ? 2 * length - 1 - i : i);

// Moving average, as scipy.ndimage.uniform_filter1d.
export function movingMean(row, size, place = nearest) {
  const at = (i) => row[place(i, row.length)];
  const before = size >> 1;
  let sum = 0;
  for (let i = -before; i < size - before; i += 1) sum += at(i);
  return Float64Array.from(row, (_, i) => {
    const result = sum / size;
    sum += at(i + size - before) - at(i - before);
    return result;
  });
}

// Beginning and end of the runs of `length` places for which `holds`, of a least length.
export function runs(length, holds, least) {
  const found = [];
  for (let i = 0, start = -1; i <= length; i += 1) {
    const isInside = i < length && holds(i);
    if (isInside && start < 0) start = i;
    if (!isInside && start >= 0) {
      if (i - start >= least) found.push([start, i]);
      start = -1;
    }
  }
  return found;
}

// ---------------------------------------------------------------- small matrices, as rows

export const unit = (size) => Array.from({ length: size }, (_, i) => Array.from({ length: size }, (__, j) => Number(i === j)));

export const transposed = (a) => a[0].map((_, j) => a.map((row) => row[j]));

export const product = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));

// Inner products of rows.
export function gram(rows) {
  const inner = (a, b) => {
    let sum = 0;
    for (let i = 0; i < a.length; i += 1) sum += a[i] * b[i];
    return sum;
  };
  return rows.map((a) => rows.map((b) => inner(a, b)));
}

// Rows of a matrix times rows of samples.
export const mixed = (matrix, rows) => matrix.map((weights) => Float64Array.from(rows[0], (_, i) => weights.reduce((sum, weight, k) => sum + weight * rows[k][i], 0)));

export function inverse(matrix) {
  const size = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...unit(size)[i]]);
  for (let i = 0; i < size; i += 1) {
    let pivot = i;
    for (let j = i + 1; j < size; j += 1) if (Math.abs(rows[j][i]) > Math.abs(rows[pivot][i])) pivot = j;
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const scale = rows[i][i];
    rows[i] = rows[i].map((value) => value / scale);
    for (let j = 0; j < size; j += 1) {
      const factor = rows[j][i];
      if (j !== i && factor) rows[j] = rows[j].map((value, k) => value - factor * rows[i][k]);
    }
  }
  return rows.map((row) => row.slice(size));
}
