// The page: opens a file, shows the recording and its prediction, explains a label.

import * as backend from "./backend.js";
import { addCalipers, decoded, draw, fitsSheet, seconds } from "./ecg.js";
import { element, explanation, facts, findings, predictionTable } from "./parts.js";
import { report } from "./report.js";

const at = (id) => document.getElementById(id);
const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
const MOST = 8; // labels before "all labels"
const state = { models: [], files: [], stated: {}, answer: null, signal: null, attribution: null, all: false, isExample: false };

const model = () => state.models.find(({ name }) => name === at("models").value) ?? state.models[0];
const about = () => ({
  descriptions: Object.fromEntries((model()?.labels ?? []).map(({ name, description }) => [name, description])),
  form: model()?.form,
  coverage: model()?.coverage,
});
const settings = () => ({ speed: Number(at("speed").value), gain: Number(at("gain").value) });

function say(text) {
  at("status").textContent = text;
}

function fail(error) {
  say("");
  at("error").replaceChildren(
    element("p", {}, element("strong", { text: error.message })),
    element("p", { text: error.remedy ? `What to do: ${error.remedy}` : "" }),
  );
  at("error").hidden = false;
  if (error.status === 401) {
    at("access").hidden = false;
    at("token").focus();
  }
}

async function attempt(text, work) {
  say(text);
  at("error").hidden = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await work();
    at("access").hidden = true;
    say("");
  } catch (error) {
    fail(error);
  } finally {
    document.body.removeAttribute("aria-busy");
  }
}

// ---------------------------------------------------------------- model and file

async function loadModels() {
  await attempt("Loading the model …", async () => {
    state.models = await backend.models(at("token").value);
    at("models").replaceChildren(...state.models.map(({ name }) => element("option", { text: name })));
    at("models-row").hidden = state.models.length < 2;
    describeModel();
  });
}

function describeModel() {
  const { name, form, labels, leads, rate, licence, digest } = model();
  const outputs = labels.length === 1 ? labels[0].name : `${labels.length} ${form === "values" ? "numbers" : form}`;
  at("model-line").textContent = `${name}: ${outputs}, ${leads.length} leads`;
  at("footer").textContent = `Model ${name}, digest ${digest}. ${leads.join(" ")}, ${rate} Hz. Licence: ${licence}.`;
}

async function open(files, isExample = false) {
  state.files = [...files];
  state.isExample = isExample;
  const isArray = backend.arrays.some((suffix) => files[0].name.toLowerCase().endsWith(suffix));
  at("stated").hidden = !isArray || isExample;
  if (isExample) await show({ rate: "500", unit: "mV" });
  else if (isArray) at("stated").elements.rate.focus();
  else await show({});
}

async function show(stated) {
  state.stated = stated;
  await attempt("Predicting …", async () => {
    at("result").hidden = true;
    const answer = await backend.predict(state.files, stated, model()?.name, at("token").value);
    Object.assign(state, { answer, signal: decoded(answer.signal), attribution: null, all: false });
    at("simulated").hidden = !(state.isExample || model()?.simulated);
    at("result").hidden = false;
    prepareTools();
    render();
    at("ecg-heading").scrollIntoView({ block: "start", behavior });
  });
}

// ---------------------------------------------------------------- recording

function prepareTools() {
  const { signal } = state;
  at("layout").options[0].disabled = !fitsSheet(signal);
  at("layout").value = fitsSheet(signal) ? "sheet" : "rows";
  at("zoom").value = Math.min(5, Math.max(2.2, (at("paper").clientWidth - 2) / 265));
  at("start").value = 0;
  at("why").hidden = true;
  at("leads").replaceChildren(
    element("legend", { text: "Leads" }),
    ...signal.leads.map((lead) => {
      const box = element("input", { type: "checkbox", value: lead, checked: "" });
      return element("label", {}, box, ` ${lead}`);
    }),
  );
}

function paperOptions() {
  const boxes = [...at("leads").querySelectorAll("input:checked")];
  return {
    ...settings(),
    layout: at("layout").value,
    start: Number(at("start").value),
    shown: new Set(boxes.map(({ value }) => value)),
    attribution: state.attribution,
    scale: Number(at("zoom").value),
  };
}

function drawPaper() {
  const span = 250 / settings().speed;
  const last = Math.max(0, seconds(state.signal) - span);
  at("start-row").hidden = last === 0;
  at("start").max = last;
  at("start-text").textContent = `${at("start").value} s`;
  at("paper").replaceChildren(draw(state.signal, paperOptions()));
}

const calipers = addCalipers(at("paper"), settings, (text) => {
  at("calipers").textContent = text ? `Calipers: ${text}` : "Calipers: drag across the paper, or use the arrow keys on it.";
});

// ---------------------------------------------------------------- prediction

function renderPredictions() {
  const { answer, all, attribution } = state;
  const options = { ...about(), most: all ? Infinity : MOST, chosen: attribution?.label };
  if (backend.canExplain && model()?.explains !== false) options.why = why;
  const more = element("button", { type: "button", class: "more", text: all ? "Fewer labels" : "All labels", "aria-expanded": String(all) });
  more.addEventListener("click", () => {
    state.all = !all;
    renderPredictions();
    at("predictions").querySelector(".more").focus();
  });
  const isLong = Object.keys(answer.probabilities).length > MOST;
  at("predictions").replaceChildren(predictionTable(answer, options), ...(isLong ? [more] : []));
}

function render() {
  at("facts").textContent = facts(state.answer);
  at("findings").replaceChildren(...findings(state.answer));
  calipers.clear();
  drawPaper();
  renderPredictions();
}

async function why(label) {
  if (state.attribution?.label === label) {
    state.attribution = null;
    at("why").hidden = true;
    render();
    return;
  }
  await attempt(`Explaining ${label} …`, async () => {
    state.attribution = await backend.explain(state.files, state.stated, model()?.name, label, at("token").value, (share) => say(`Explaining ${label} … ${Math.round(100 * share)} %`));
    at("why").replaceChildren(...explanation(state.attribution, state.answer));
    at("why").hidden = false;
    render();
    at("paper").scrollIntoView({ block: "nearest", behavior });
  });
}

// ---------------------------------------------------------------- downloads

function download(content, type, suffix) {
  const link = element("a", { download: `${state.answer.record.replace(/\.[^.]*$/, "")}${suffix}` });
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

at("download-json").addEventListener("click", () => {
  const { signal, ...answer } = state.answer;
  download(JSON.stringify(answer, null, 1), "application/json", ".json");
});
at("download-report").addEventListener("click", async () => {
  const isSimulated = state.isExample || model()?.simulated;
  const page = await report(state, { ...paperOptions(), scale: 0 }, about(), isSimulated);
  download(page, "text/html", ".html");
});
at("print").addEventListener("click", () => window.print());

// ---------------------------------------------------------------- events

at("formats").textContent = `Formats: ${backend.formats}`;
at("file").addEventListener("change", ({ target }) => {
  if (target.files.length) open(target.files);
  target.value = ""; // so that the same file can be chosen again
});
at("example").addEventListener("click", () => attempt("Loading the example …", async () => {
  const response = await fetch(backend.example, at("token").value ? { headers: { Authorization: `Bearer ${at("token").value}` } } : {});
  if (!response.ok) throw Object.assign(new Error("the example is not available"), { status: response.status });
  await open([new File([await response.arrayBuffer()], "example.csv")], true);
}));
at("stated").addEventListener("submit", (event) => {
  event.preventDefault();
  show(Object.fromEntries(new FormData(at("stated"))));
});
at("access").addEventListener("submit", (event) => {
  event.preventDefault();
  loadModels();
});
at("models").addEventListener("change", () => {
  describeModel();
  if (state.answer) show(state.stated);
});
for (const id of ["layout", "speed", "gain", "zoom", "start", "leads"]) {
  at(id).addEventListener("input", () => {
    calipers.clear();
    drawPaper();
  });
}
const drop = at("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files);
  });
}
loadModels();
