// Parts of the page and of the report, built as elements so that no text becomes markup.

export function element(tag, { text, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") node.style.cssText = value; // the policy forbids the attribute
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function facts(answer) {
  const parts = [
    answer.record,
    `${answer.leads.length} leads`,
    `${answer.duration.toFixed(1)} s at ${answer.rate} Hz`,
    `model ${answer.model.name} (${answer.model.digest.slice(0, 12)})`,
  ];
  if (answer.derived_leads?.length) parts.push(`${answer.derived_leads.join(", ")} computed from other limb leads`);
  return parts.join(" · ");
}

const LEVELS = { note: "Note", doubt: "Doubt", unusable: "Unusable" };

// Findings on the recording, and warnings that are not findings.
export function findings(answer) {
  const items = (answer.findings ?? []).map((finding) =>
    element("li", { class: finding.level },
      element("strong", { text: `${LEVELS[finding.level]}: ` }), finding.text));
  const texts = new Set((answer.findings ?? []).map((finding) => finding.text));
  for (const warning of answer.warnings ?? []) {
    if (![...texts].some((text) => warning.includes(text))) {
      items.push(element("li", { class: "doubt" }, element("strong", { text: "Warning: " }), warning));
    }
  }
  if (!items.length) items.push(element("li", { class: "note", text: "Nothing unusual about the recording." }));
  if (answer.unchecked) items.push(element("li", { class: "hint", text: `Not checked in the browser, but by the server: ${answer.unchecked}.` }));
  return items;
}

const probability = (value) => (value >= 0.0005 ? value.toFixed(3) : "< 0.001");

// Rows of the table: {name, value, limit, isCalled, verdict}, the most probable first.
export function rowsOf(answer) {
  if (Object.keys(answer.values ?? {}).length) {
    return Object.entries(answer.values).map(([name, value]) => ({ name, number: value, unit: answer.units?.[name] ?? "", interval: answer.intervals?.[name] }));
  }
  const above = new Set(answer.above_threshold ?? []);
  const withoutCall = new Set(answer.without_call ?? []);
  const classSet = new Set(answer.class_set ?? []);
  const rows = Object.entries(answer.probabilities).map(([name, value]) => {
    const isCalled = above.has(name) || name === answer.class;
    let verdict = answer.answers?.[name] ?? "";
    if (classSet.size) verdict = classSet.has(name) ? "possible" : "ruled out";
    if (!verdict && withoutCall.has(name)) verdict = "no call";
    return { name, value, limit: answer.thresholds?.[name], isCalled, verdict };
  });
  return rows.sort((a, b) => (b.value ?? -1) - (a.value ?? -1) || a.name.localeCompare(b.name));
}

// The table of predictions. `form` is that of the model, `descriptions` are by label, `coverage` is
// that of the sets, `why` makes a button of each label, and `chosen` is the one that is pressed.
export function predictionTable(answer, { most = Infinity, ...options }) {
  const rows = rowsOf(answer);
  if (rows.some((row) => "number" in row)) return valueTable(rows, options);
  const { descriptions, form, coverage, why } = options;
  const isClass = form === "classes";
  const hasMeanings = rows.some((row) => descriptions[row.name]);
  const hasSets = rows.some((row) => ["present", "absent", "cannot tell", "possible"].includes(row.verdict));
  const hasLimits = rows.some((row) => row.limit !== undefined);
  const body = rows.filter((row, i) => i < most || row.isCalled).map((row) => {
    const track = element("div", { class: "track", "aria-hidden": "true" },
      element("span", { class: "bar", style: `width:${(100 * (row.value ?? 0)).toFixed(1)}%` }));
    if (row.limit !== undefined) track.append(element("span", { class: "limit", style: `left:${(100 * row.limit).toFixed(1)}%` }));
    return element("tr", row.isCalled ? { class: "called" } : {},
      element("th", { scope: "row" }, nameCell(row, options)),
      ...meaningCell(row, descriptions, hasMeanings),
      element("td", { class: "number", text: row.value === null ? "no answer" : probability(row.value) }),
      element("td", {}, track),
      ...(hasLimits ? [element("td", { class: "number threshold", text: row.limit === undefined ? "" : probability(row.limit) })] : []),
      element("td", { text: [row.isCalled ? (answer.class ? "predicted" : "called") : "", row.verdict].filter(Boolean).join(", ") }));
  });
  const head = [isClass ? "Class" : "Label", ...(hasMeanings ? ["Meaning"] : []), "Probability", "", ...(hasLimits ? ["Threshold"] : []), "Answer"];
  const limits = hasLimits ? "The red line is the threshold from which on a label is called." : isClass ? "" : "The model has no thresholds.";
  const sets = hasSets ? `${isClass ? "Possible" : "Present, absent or cannot tell"}: ${notRuledOut(coverage)}` : "";
  return table([limits, sets, why ? `A ${isClass ? "class" : "label"} shows why.` : ""], head, body);
}

const notRuledOut = (coverage) => `what the calibration records do not rule out${coverage ? `, at a coverage of ${Number((100 * coverage).toPrecision(4))} %` : ""}.`;

const meaningCell = (row, descriptions, hasMeanings) => (hasMeanings ? [element("td", { class: "meaning", text: descriptions[row.name] ?? "" })] : []);

function valueTable(rows, options) {
  const { descriptions, coverage, why } = options;
  const hasMeanings = rows.some((row) => descriptions[row.name]);
  const hasIntervals = rows.some((row) => row.interval);
  const rounded = (value) => Number(value.toPrecision(4));
  const body = rows.map((row) => element("tr", {},
    element("th", { scope: "row" }, nameCell(row, options)),
    ...meaningCell(row, descriptions, hasMeanings),
    element("td", { text: `${rounded(row.number)} ${row.unit}` }),
    ...(hasIntervals ? [element("td", { text: row.interval ? row.interval.map(rounded).join(" to ") : "" })] : [])));
  const head = ["Number", ...(hasMeanings ? ["Meaning"] : []), "Value", ...(hasIntervals ? ["Interval"] : [])];
  return table([hasIntervals ? `Interval: ${notRuledOut(coverage)}` : "", why ? "A number shows why." : ""], head, body);
}

function nameCell(row, { why, chosen }) {
  if (!why) return row.name;
  const button = element("button", { type: "button", text: row.name, "aria-pressed": String(row.name === chosen), title: `Why ${row.name}?` });
  button.addEventListener("click", () => why(row.name));
  return button;
}

function table(sentences, head, body) {
  return element("div", { class: "scroll" }, element("table", {},
    element("caption", { text: sentences.filter(Boolean).join(" ") }),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col", class: text.toLowerCase(), text })))),
    element("tbody", {}, ...body)));
}

// What an explanation says of an answer, beside the colours.
export function explanation(result, answer) {
  const { label } = result;
  const isNumber = Object.keys(answer.values ?? {}).length > 0;
  const [about, more, less] = !result.is_for_label ? ["Attention", " is attended to"]
    : isNumber ? [`What raises ${label}`, ` raises ${label}, `, " lowers it"]
      : [`Evidence for ${label}`, ` speaks for ${label}, `, " speaks against it"];
  const parts = [
    element("p", {}, element("strong", { text: `${about}: ` }), `${result.words}.`),
    element("p", {}, element("span", { class: "key for" }), more),
  ];
  if (less) parts[1].append(element("span", { class: "key against" }), `${less}; the stronger the colour, the more.`);
  const error = result.completeness_error;
  parts.push(element("p", { class: "hint", text:
    `Method: ${result.method}, ${result.summary}. ` +
    (error === null || error === undefined ? "" : `The contributions sum to the change of the output from flat lines, ${(result.output - result.baseline_output).toFixed(2)}, up to ${error.toPrecision(2)}. `) +
    "Colours show what changes the output of this network, not a cause of disease; a wrong prediction has colours too." }));
  if (result.similar?.length) parts.push(similarTable(result.similar));
  return parts;
}

function similarTable(records) {
  const body = records.map(({ record, distance, labels }) => element("tr", {},
    element("th", { scope: "row", text: record }),
    element("td", { class: "number", text: distance.toFixed(3) }),
    element("td", { text: labels.join(", ") || "none" })));
  return table(["Most similar records of the cohort, by what the network makes of them (distance: 1 - cosine; 0 is the same)."], ["Record", "Distance", "Labels"], body);
}
