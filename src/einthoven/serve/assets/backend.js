// The server behind the page. `einthoven site` writes another file in its place (browser.js).

import { Refusal } from "./refusal.js";

export const formats = "DICOM, WFDB (choose .hea and .dat together), HL7 aECG, GE MUSE and CardioSoft, Philips, SCP-ECG, EDF, ISHNE, CSV and other arrays. The file is sent to the server that you see in the address bar, and is not kept there.";
export const canExplain = true;
export const arrays = [".csv", ".tsv", ".txt", ".npy", ".npz", ".mat", ".h5", ".hdf5"];
export const example = "example.csv";

async function fetched(path, { query = {}, token = "", ...options } = {}) {
  const words = Object.entries(query).filter(([, value]) => value);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(words)}`, { ...options, headers });
  } catch {
    throw new Refusal({ problem: "the server does not answer", remedy: "see whether it still runs" });
  }
  if (response.ok) return response.json();
  const refusal = { problem: `status ${response.status}`, remedy: "repeat the request" };
  throw new Refusal(await response.json().catch(() => refusal), response.status);
}

function sent(path, files, query, token) {
  const body = new FormData();
  for (const file of files) body.append("file", file);
  return fetched(path, { method: "POST", body, query, token });
}

export const models = async (token) => (await fetched("models", { token })).models;

export const predict = (files, stated, model, token) =>
  sent("predict", files, { ...stated, model, signal: "true" }, token);

export const explain = (files, stated, model, label, token) =>
  sent("explain", files, { ...stated, model, label }, token);
