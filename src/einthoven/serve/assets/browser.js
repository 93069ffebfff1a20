// The backend of the static page: the model runs in the browser, and no ECG leaves it.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { attributionOf, occluded } from "./occlusion.js";
import { answerOf, prepared } from "./prepare.js";
import { SERVER_ONLY, findingsOf, warningsOf, withoutCalibration } from "./quality.js";
import { read } from "./readers.js";
import { Refusal } from "./refusal.js";

export { Refusal };
export const formats = "DICOM waveforms (16 bits, explicit VR), WFDB (format 16; choose .hea and .dat together), and CSV with a column a lead. The file stays in this browser. The server of einthoven reads many more formats.";
export const canExplain = true;
export const arrays = [".csv", ".tsv", ".txt"];
export const example = "example.csv";

const LONGEST = 60; // s
const SMALLEST = 1e-15; // probability whose log odds are finite

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };

let model = null;
let session = null;
let latest = null; // prepared rows of the recording shown, and the changes by occlusion

const fetched = async (name) => {
  const response = await fetch(name);
  if (!response.ok) throw new Refusal({ problem: `${name} is missing`, remedy: "write the site again" });
  return response;
};

export async function models() {
  model = await (await fetched("model.json")).json();
  session = await ort.InferenceSession.create(await (await fetched("model.onnx")).arrayBuffer());
  return [model];
}

// Outputs of the graph for records of one length, each a list of rows: {name: row a record}.
async function outputsOf(records) {
  const samples = records[0][0].length;
  const data = new Float32Array(records.length * model.leads.length * samples);
  records.flat().forEach((row, place) => data.set(row, place * samples));
  const outputs = await session.run({ ecg: new ort.Tensor("float32", data, [records.length, model.leads.length, samples]) });
  const width = model.labels.length;
  const rowsOf = ({ data: all }) => records.map((_, i) => Array.from(all.subarray(i * width, (i + 1) * width)));
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, rowsOf(tensor)]));
}

export async function predict(files, stated) {
  const signal = withoutCalibration(await read(files, stated), model.checks.calibration);
  const content = await new Blob(signal.sources).arrayBuffer(); // a header of WFDB, then its signals
  const duration = signal.rows[0].length / signal.rate;
  if (duration > LONGEST) throw new Refusal({ problem: `the recording lasts ${Math.round(duration)} s`, remedy: `use one of at most ${LONGEST} s, or the server` });
  const { rows, derived } = prepared(signal, model);
  const outputs = await outputsOf([rows]);
  const findings = findingsOf(signal, model);
  const isUnusable = findings.some(({ level }) => level === "unusable");
  const digest = crypto.subtle ? await crypto.subtle.digest("SHA-256", content) : new ArrayBuffer(0);
  const sha256 = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  latest = { rows, changes: null };
  return {
    model: { name: model.name, digest: model.digest },
    record: signal.sources[0].name,
    ...answerOf((outputs.probabilities ?? outputs.values)[0], outputs.uncalibrated?.[0], model, isUnusable),
    derived_leads: derived,
    findings,
    warnings: warningsOf(findings),
    unchecked: SERVER_ONLY,
    sha256,
    duration,
    rate: signal.rate,
    leads: signal.leads,
    signal,
  };
}

// Why a label, of the recording that was predicted last.
export async function explain(files, stated, name, label, token, report) {
  const { rows } = latest;
  const logOdds = (value) => Math.log(Math.max(value, SMALLEST)) - Math.log(Math.max(1 - value, SMALLEST));
  latest.changes ??= await occluded(rows, model, async (crops) => {
    const { uncalibrated, values } = await outputsOf(crops);
    return values ?? uncalibrated.map((row) => row.map(logOdds));
  }, report);
  const place = model.labels.findIndex((each) => each.name === label);
  return { label, ...model.explanation, ...attributionOf(latest.changes, place, model, rows[0].length) };
}
