// Readers of the static page: CSV, WFDB (format 16) and DICOM waveforms, as millivolts.
// A reader gives {rate, leads, rows} or throws a Refusal; nothing is guessed.

import { Refusal } from "./refusal.js";

const STANDARD = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"];
const MILLIVOLTS = { mV: 1, uV: 1e-3, V: 1e3 };

export const canonical = (name) =>
  STANDARD.find((lead) => lead.toLowerCase() === name.trim().toLowerCase()) ?? name.trim();

const refuse = (problem, remedy) => {
  throw new Refusal({ problem, remedy });
};

// Read the chosen files: one CSV or DICOM file, or a header and a signal file of WFDB.
export async function read(files, stated) {
  const header = files.find(({ name }) => name.toLowerCase().endsWith(".hea"));
  const first = files[0];
  const content = new Uint8Array(await first.arrayBuffer());
  const remedy = "choose a CSV or DICOM file, or both files of a WFDB record (.hea and .dat)";
  let signal;
  if (header || first.name.toLowerCase().endsWith(".dat")) {
    if (!header) refuse("a .dat file needs its header", remedy);
    signal = await readWfdb(await header.text(), files);
  } else if (files.length > 1) {
    refuse(`${files.length} files were chosen`, remedy);
  } else if (new TextDecoder().decode(content.subarray(128, 132)) === "DICM") {
    signal = readDicom(content);
  } else if (/\.(csv|tsv|txt)$/i.test(first.name)) {
    signal = readCsv(new TextDecoder().decode(content), stated);
  } else {
    refuse(`${first.name} is of another format`, remedy);
  }
  const repeated = signal.leads.find((lead, i) => signal.leads.indexOf(lead) !== i);
  if (repeated) refuse(`lead ${repeated} is there twice`, "correct the file");
  if (signal.rows.some((row) => !row.length || !row.every(Number.isFinite))) {
    refuse("samples are missing or no numbers", "use the server, which reads such files");
  }
  const sources = header ? [header, signal.data] : [first];
  return { ...signal, sources, rows: signal.rows.map((row) => Float32Array.from(row)) }; // as Python's records
}

export function readCsv(text, { rate, unit, leads }) {
  const lines = text.replace(/^\ufeff/, "").split(/\r?\n/).filter((line) => line.trim());
  const delimiter = [";", "\t", ","].find((each) => lines[0]?.includes(each));
  if (!delimiter) refuse("the file has no columns", "use a comma, semicolon or tab between leads");
  const cells = lines.map((line) => line.split(delimiter).map((cell) => cell.trim().replace(/^"|"$/g, "")));
  const isHeader = cells[0].some((cell) => cell && !Number.isFinite(Number(cell)));
  const names = isHeader ? cells.shift() : (leads ?? "").split(",");
  if (!names.every((name) => name.trim())) refuse("the leads are not named", "name one lead a column, in the first line or in the field");
  if (cells.some((row) => row.length !== names.length)) refuse(`a line has not ${names.length} cells`, "name one lead a column");
  const size = MILLIVOLTS[unit];
  const hertz = Number(rate);
  if (!size || !(hertz > 0)) refuse("rate and unit are not stated", "state them");
  const columns = names.map((name, place) => ({ name, place })).filter(({ name }) => !/^(time|t|sample|index|ms|s)\b/i.test(name.trim()));
  return {
    rate: hertz,
    leads: columns.map(({ name }) => canonical(name)),
    rows: columns.map(({ place }) => Float64Array.from(cells, (row) => (row[place] === "" ? NaN : Number(row[place]) * size))),
  };
}

async function readWfdb(text, files) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() && !line.startsWith("#"));
  const [name, count, frequency, length] = lines[0].trim().split(/\s+/);
  if (name.includes("/")) refuse("a record of several segments", "use the server");
  const rate = Number((frequency ?? "").split("/")[0]);
  if (!(rate > 0)) refuse("the header states no sampling rate", "correct the header");
  const specs = lines.slice(1, 1 + Number(count)).map((line) => {
    const [file, format, gain = "", , , , , , ...words] = line.trim().split(/\s+/);
    const parts = /^([-+.\deE]+)(?:\((-?\d+)\))?(?:\/(\S+))?$/.exec(gain);
    const size = MILLIVOLTS[parts?.[3] ?? "mV"];
    if (format !== "16") refuse(`format ${format} is not read here`, "use the server, or convert the record");
    if (!parts || !(Number(parts[1]) > 0) || !size) refuse(`gain ${gain} is not read here`, "use the server");
    const zero = line.trim().split(/\s+/)[4];
    return { file, gain: Number(parts[1]) / size, baseline: Number(parts[2] ?? zero ?? 0), lead: canonical(words.join(" ")) };
  });
  if (!specs.length || specs.some(({ lead }) => !lead)) refuse("the header does not name the leads", "correct the header");
  if (new Set(specs.map(({ file }) => file)).size > 1) refuse("the signals are in several files", "use the server");
  const data = files.find((file) => file.name === specs[0].file);
  if (!data) refuse(`${specs[0].file} is missing`, "choose the header and the signal file together");
  const view = new DataView(await data.arrayBuffer());
  const samples = Number(length) || Math.floor(view.byteLength / 2 / specs.length);
  if (view.byteLength !== 2 * samples * specs.length) refuse("header and signal file differ in length", "fetch the record again");
  const rows = specs.map(({ gain, baseline }, row) =>
    Float64Array.from({ length: samples }, (_, i) => {
      const digital = view.getInt16(2 * (i * specs.length + row), true);
      return digital === -32768 ? NaN : (digital - baseline) / gain;
    }));
  return { rate, leads: specs.map(({ lead }) => lead), rows, data };
}

// ---------------------------------------------------------------- DICOM

const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"]);
const MDC = { "2:1": "I", "2:2": "II", "2:61": "III", "2:62": "aVR", "2:63": "aVL", "2:64": "aVF", "2:3": "V1", "2:4": "V2", "2:5": "V3", "2:6": "V4", "2:7": "V5", "2:8": "V6" };
const SCP = { 1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6" };

// Elements of a data set in explicit VR, little-endian: {tag: bytes or list of items}.
function elements(content, start, end) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const found = {};
  let at = start;
  while (at + 8 <= end) {
    const group = view.getUint16(at, true);
    const tag = group.toString(16).padStart(4, "0") + view.getUint16(at + 2, true).toString(16).padStart(4, "0");
    if (tag === "fffee00d" || tag === "fffee0dd") return { found, at: at + 8 };
    const kind = String.fromCharCode(content[at + 4], content[at + 5]);
    if (!/^[A-Z]{2}$/.test(kind)) refuse("the DICOM file has another transfer syntax", "use the server");
    const isLong = LONG.has(kind);
    const length = isLong ? view.getUint32(at + 8, true) : view.getUint16(at + 6, true);
    at += isLong ? 12 : 8;
    if (kind === "SQ") {
      const items = [];
      const stop = length === 0xffffffff ? end : at + length;
      while (at + 8 <= stop) {
        const mark = view.getUint16(at + 2, true);
        const size = view.getUint32(at + 4, true);
        at += 8;
        if (mark !== 0xe000) break;
        const item = elements(content, at, size === 0xffffffff ? stop : at + size);
        items.push(item.found);
        at = size === 0xffffffff ? item.at : at + size;
      }
      found[tag] = items;
    } else {
      if (length === 0xffffffff || at + length > end) refuse("the DICOM file is cut off", "fetch it again");
      found[tag] = content.subarray(at, at + length);
      at += length;
    }
  }
  return { found, at };
}

const text = (bytes) => (bytes ? new TextDecoder().decode(bytes).replace(/\0+$/, "").trim() : "");
const word = (bytes) => (bytes?.length >= 2 ? bytes[0] | (bytes[1] << 8) : 0);

function leadOf(channel) {
  const source = channel["003a0208"]?.[0] ?? {};
  const code = text(source["00080100"]);
  const scp = /^5\.6\.3-9-(\d+)$/.exec(code);
  const lead = MDC[code] ?? (scp && SCP[scp[1]]) ?? canonical(text(source["00080104"]).replace(/^lead\s+/i, "").replace(/\s*\(.*$/, ""));
  return lead || refuse("a channel has no lead", "use the server");
}

function readDicom(content) {
  const { found } = elements(content, 132, content.length);
  const syntax = text(found["00020010"]);
  if (syntax !== "1.2.840.10008.1.2.1") refuse(`transfer syntax ${syntax} is not read here`, "use the server");
  const group = found["54000100"]?.[0];
  if (!group) refuse("the DICOM file has no waveform", "choose an ECG");
  const channels = group["003a0200"] ?? [];
  const samples = new DataView(group["003a0010"].buffer, group["003a0010"].byteOffset).getUint32(0, true);
  const rate = Number(text(group["003a001a"]));
  if (word(group["54001004"]) !== 16 || text(group["54001006"]) !== "SS") refuse("the samples are not 16 bits with a sign", "use the server");
  const data = group["54001010"];
  if (!(rate > 0) || !channels.length || data.length < 2 * samples * channels.length) refuse("the waveform is incomplete", "fetch the file again");
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const rows = channels.map((channel, row) => {
    const size = MILLIVOLTS[text(channel["003a0211"]?.[0]?.["00080100"])];
    const sensitivity = Number(text(channel["003a0210"]) || NaN);
    if (!size || !(sensitivity > 0)) refuse("a channel has no unit", "use the server");
    const scale = size * sensitivity * Number(text(channel["003a0212"]) || 1);
    const baseline = Number(text(channel["003a0213"]) || 0);
    return Float64Array.from({ length: samples }, (_, i) => {
      const digital = view.getInt16(2 * (i * channels.length + row), true);
      return digital === -32768 ? NaN : digital * scale + baseline * size;
    });
  });
  return { rate, leads: channels.map(leadOf), rows };
}
