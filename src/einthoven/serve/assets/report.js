// The report: one HTML file without scripts and requests, with the ECG in true size.

import { draw, fitsSheet } from "./ecg.js";
import { element, explanation, facts, findings, predictionTable } from "./parts.js";

export async function report({ answer, signal, attribution }, options, about, isSimulated) {
  const style = await (await fetch(new URL("style.css", import.meta.url))).text();
  const page = document.implementation.createHTMLDocument(`ECG report: ${answer.record}`);
  page.documentElement.lang = "en";
  page.head.append(
    element("meta", { charset: "utf-8" }),
    element("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
  );
  const layout = fitsSheet(signal) ? options.layout : "rows";
  const paper = element("div", { class: "paper" }, draw(signal, { ...options, layout }));
  const body = [
    element("p", { class: "notice" }, element("strong", { text: "Not a medical device." }), " For research; not for decisions about patients."),
    element("h1", { text: "ECG report" }),
    element("p", { text: facts(answer) }),
    element("ul", { class: "findings" }, ...findings(answer)),
    paper,
    element("p", { class: "hint", text: `${options.speed} mm/s · ${options.gain} mm/mV · no display filter · each lead centred on its median` }),
    ...(attribution ? [element("h2", { text: `Why ${attribution.label}?` }), ...explanation(attribution, answer)] : []),
    element("h2", { text: "Prediction" }),
    predictionTable(answer, about),
    element("p", { class: "hint", text: `Model ${answer.model.name}, digest ${answer.model.digest}. SHA-256 of the file: ${answer.sha256}. ${new Date().toISOString()}` }),
  ];
  if (isSimulated) body.splice(1, 0, element("p", { class: "notice simulated" }, element("strong", { text: "SIMULATED ECG." }), " It was not measured in a patient."));
  page.body.append(...body);
  const html = page.documentElement.outerHTML.replace("</head>", () => `<style>${style}</style></head>`);
  return `<!DOCTYPE html>\n${html}`;
}
