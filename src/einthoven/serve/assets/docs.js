// The page of all addresses, from the OpenAPI description of the server.

function element(tag, text = "", ...children) {
  const node = document.createElement(tag);
  node.textContent = text;
  node.append(...children);
  return node;
}

function table(caption, head, rows) {
  const cells = (tag, row) => element("tr", "", ...row.map((cell) => element(tag, cell)));
  return element(
    "table", "",
    element("caption", caption),
    element("thead", "", cells("th", head)),
    element("tbody", "", ...rows.map((row) => cells("td", row))),
  );
}

function example(method, path, operation) {
  const required = (operation.parameters ?? []).filter((parameter) => parameter.required);
  const query = required.map((parameter) => `${parameter.name}=${parameter.name.toUpperCase()}`);
  const url = `${location.origin}${path}${query.length ? `?${query.join("&")}` : ""}`;
  return method === "post" ? `curl -F file=@ECG '${url}'` : `curl '${url}'`;
}

function section(method, path, operation) {
  const node = element(
    "section", "",
    element("h2", `${method.toUpperCase()} ${path}`),
    element("p", `${operation.summary}. ${operation.description ?? ""}`.replaceAll("`", "")),
    element("pre", example(method, path, operation)),
  );
  const parameters = (operation.parameters ?? []).map((parameter) => [
    parameter.name,
    parameter.required ? "required" : String(parameter.schema?.default ?? ""),
    (parameter.description ?? "").replaceAll("`", ""),
  ]);
  if (parameters.length) {
    node.append(table("Parameters of the query", ["Name", "Default", "Meaning"], parameters));
  }
  const refusals = Object.entries(operation.responses ?? {})
    .filter(([status]) => Number(status) >= 400)
    .map(([status, response]) => [status, response.description]);
  if (refusals.length) {
    const details = element("details", "", element("summary", "Refusals"));
    details.append(table("Each is JSON with problem and remedy", ["Status", "When"], refusals));
    node.append(details);
  }
  return node;
}

const description = await (await fetch("openapi.json")).json();
document.getElementById("summary").textContent =
  `${description.info.summary} Version ${description.info.version}.`;
const sections = Object.entries(description.paths).flatMap(([path, operations]) =>
  Object.entries(operations).map(([method, operation]) => section(method, path, operation)),
);
document.getElementById("operations").append(...sections);
