// Why: how far the output changes when a P, QRS, ST-T or TP window of a lead becomes a straight
// line, as the method occlusion-waves of explain/methods.py. The changes of all labels are computed
// at once, crop by crop.

import { inWords, rPeaks, segmentOf, segments } from "./beats.js";
import { cropStarts } from "./prepare.js";

const BATCH = 8; // crops in a pass of the network
const BUCKET = 0.01; // s, over which an attribution is summed

// Changes of every output, {changes, parts, starts}: `changes` has, for a window of a lead in a
// crop, {crop, lead, first, last, part, values}. `run` gives a row of outputs for each of some
// crops, and `report` gets the share that is done.
export async function occluded(rows, model, run, report) {
  const { rate, window, checks } = model;
  const peaks = rPeaks(rows, rate, checks.beats);
  const parts = segments(peaks, rows[0].length / rate, checks.beats);
  const starts = cropStarts(rows[0].length, model);
  const whole = await run(starts.map((start) => rows.map((row) => row.subarray(start, start + window))));
  const changes = starts.flatMap((start, crop) => {
    const places = Array.from({ length: window }, (_, i) => segmentOf(parts, (start + i + 0.5) / rate));
    const firsts = places.map((_, i) => i).filter((i) => places[i] !== places[i - 1]);
    return firsts.flatMap((first, k) => rows.map((_, lead) => ({ crop, lead, first, last: (firsts[k + 1] ?? window) - 1, part: places[first] })));
  });
  for (let done = 0; done < changes.length; done += BATCH) {
    const some = changes.slice(done, done + BATCH);
    const outputs = await run(some.map((change) => withLine(rows, starts[change.crop], window, change)));
    some.forEach((change, i) => { change.values = whole[change.crop].map((value, output) => value - outputs[i][output]); });
    report(done / changes.length);
    await new Promise((resolve) => { setTimeout(resolve); }); // so that the page is drawn
  }
  return { changes, parts, starts, whole };
}

// A crop in which a part of a lead is a straight line between the part's ends.
function withLine(rows, start, window, { lead, first, last }) {
  return rows.map((row, place) => {
    const crop = row.slice(start, start + window);
    if (place === lead) for (let i = first; i <= last; i += 1) crop[i] = row[start + first] + ((row[start + last] - row[start + first]) * (i - first)) / Math.max(1, last - first);
    return crop;
  });
}

// Attribution of one output on the samples of the recording, in sums over 10 ms, and in words.
export function attributionOf({ changes, parts, starts, whole }, output, { leads, rate }, samples) {
  const width = Math.max(1, Math.round(BUCKET * rate));
  const values = leads.map(() => new Array(Math.ceil(samples / width)).fill(0));
  const sums = parts.map(() => leads.map(() => 0));
  for (const change of changes) {
    const value = change.values[output] / starts.length;
    sums[change.part][change.lead] += value;
    const share = value / (change.last - change.first + 1);
    for (let i = change.first; i <= change.last; i += 1) values[change.lead][Math.floor((starts[change.crop] + i) / width)] += share;
  }
  return {
    is_for_label: true,
    baseline: "line",
    output: whole.reduce((sum, row) => sum + row[output], 0) / whole.length,
    completeness_error: null,
    words: inWords(sums, parts, leads),
    rate: rate / width,
    leads,
    values,
  };
}
