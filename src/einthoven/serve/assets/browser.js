// The backend of the static page: the model runs in the browser, and no ECG leaves it.

import * as ort from "./ort/ort.wasm.bundle.min.mjs";
import { answerOf, prepared } from "./prepare.js";
import { read } from "./readers.js";
import { Refusal } from "./refusal.js";

export { Refusal };
export const formats = "DICOM waveforms (16 bits, explicit VR), WFDB (format 16; choose .hea and .dat together), and CSV with a column a lead. The file stays in this browser. The server of einthoven reads many more formats, checks the quality of the recording, and explains.";
export const canExplain = false;
export const arrays = [".csv", ".tsv", ".txt"];
export const example = "example.csv";

const LONGEST = 60; // s

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("./ort/ort-wasm-simd-threaded.wasm", import.meta.url).href };

let model = null;
let session = null;

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

export async function predict(files, stated) {
  const content = await files[0].arrayBuffer();
  const signal = await read(files, stated);
  const duration = signal.rows[0].length / signal.rate;
  if (duration > LONGEST) throw new Refusal({ problem: `the recording lasts ${Math.round(duration)} s`, remedy: `use one of at most ${LONGEST} s, or the server` });
  const { data, samples, derived } = prepared(signal, model);
  const input = new ort.Tensor("float32", data, [1, model.leads.length, samples]);
  const outputs = await session.run({ ecg: input });
  const values = Array.from((outputs.probabilities ?? outputs.values).data);
  const digest = crypto.subtle ? await crypto.subtle.digest("SHA-256", content) : new ArrayBuffer(0);
  const sha256 = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return {
    model: { name: model.name, digest: model.digest },
    record: files[0].name,
    ...answerOf(values, model),
    derived_leads: derived,
    findings: [],
    warnings: ["the quality of the recording is not checked in the browser: look for wrong units, noise and exchanged electrodes"],
    sha256,
    duration,
    rate: signal.rate,
    leads: signal.leads,
    signal,
  };
}
