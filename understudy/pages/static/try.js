// A form for one row, made from /schema; the server alone judges what is typed, and says what it allows.

import { address, command, element, loaded, numeral, oneLine, readable } from "./page.js";

const form = document.querySelector("form");
const problems = document.getElementById("problems");
const answer = document.getElementById("answer");
const same = document.getElementById("same");
const fields = new Map(); // column to its control and its texts
let schema = null;
let version = null;

const mayBeEmpty = (property) => (property.enum ?? property.type ?? []).includes(property.enum ? null : "null");

function hint(property) {
  const parts = [];
  const { minimum: low, maximum: high } = property;
  if (low !== undefined && high !== undefined) parts.push(`${numeral(low)} to ${numeral(high)}`);
  else if (low !== undefined) parts.push(`from ${numeral(low)}`);
  else if (high !== undefined) parts.push(`at most ${numeral(high)}`);
  if (property.examples) parts.push(`such as ${property.examples.join(", ")}`);
  if (property.description) parts.push(property.description);
  const said = parts.join(" ");
  if (!mayBeEmpty(property)) return said;
  return said ? `${said}; may be empty` : "may be unknown";
}

/** The control of a column: get and set are its cell as JSON has it. */
function control(id, property) {
  if (property.enum) {
    const values = property.enum.toSorted((a, b) => (a === null) - (b === null));
    const select = element("select", { id });
    select.append(...values.map((value, place) => element("option", { value: place }, value === null ? "unknown" : `${value}`)));
    const set = (cell) => { select.selectedIndex = values.indexOf(cell); };
    return { input: select, get: () => values[select.selectedIndex] ?? null, set };
  }
  const isNumber = [property.type].flat().includes("number");
  // A field of type "number" would keep to itself what is no number, and send an empty cell instead.
  const mode = isNumber && property.minimum >= 0 ? "decimal" : null;
  const type = property.format === "date" ? "date" : "text";
  const input = element("input", { id, type, inputmode: mode, autocomplete: "off", list: property.examples ? `${id}-list` : null });
  const get = () => {
    const text = input.value.trim();
    if (!text) return null;
    const number = isNumber && /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : NaN;
    return Number.isFinite(number) ? number : text;
  };
  return { input, get, set: (cell) => { input.value = cell ?? ""; } };
}

function field(name, property, number) {
  const id = `column-${number}`;
  const made = control(id, property);
  const about = element("p", { id: `${id}-hint`, class: "muted" }, hint(property));
  const error = element("p", { id: `${id}-error`, class: "bad" });
  made.input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
  if (!mayBeEmpty(property)) made.input.setAttribute("aria-required", "true");
  const list = property.examples ? [element("datalist", { id: `${id}-list` }, ...property.examples.map((value) => element("option", { value })))] : [];
  fields.set(name, { ...made, error });
  return element("div", { class: "field" }, element("label", { for: id }, readable(name)), made.input, ...list, about, error);
}

/** Make the form of a schema; what is typed already stays where the column is still there. */
function build() {
  const typed = new Map([...fields].map(([name, { get }]) => [name, get()]));
  fields.clear();
  const made = schema.required.map((name, number) => field(name, schema.properties[name], number));
  document.getElementById("fields").replaceChildren(...made);
  const example = schema.examples[0];
  for (const [name, { set }] of fields) set(typed.has(name) ? typed.get(name) : example[name]);
}

async function follow() {
  const [{ body, version: number }, { body: served }] = await Promise.all([loaded("schema"), loaded("version")]);
  const isNew = (part) => JSON.stringify(schema?.[part]) !== JSON.stringify(body[part]);
  const isChanged = isNew("properties") || isNew("required");
  schema = body;
  version = number;
  if (isChanged) build();
  document.title = `Try ${readable(served.name)}`;
  document.getElementById("name").textContent = `Try ${readable(served.name)}`;
  document.getElementById("served").textContent = `Version ${served.version}, in ${served.stage}`;
  form.hidden = answer.hidden = false;
  return served.stage;
}

function forget() {
  problems.hidden = true;
  problems.replaceChildren();
  for (const { input, error } of fields.values()) {
    input.removeAttribute("aria-invalid");
    error.textContent = "";
  }
}

/** Show each fault at its fields, and what belongs to none above them; the focus goes to the first. */
function refuse({ message, faults = [] }) {
  const others = [];
  for (const { column, problem, reason, allowed } of faults) {
    const named = fields.has(column) ? [column] : column.split(" + ");
    const text = `${problem}${reason ? ` (${reason})` : ""}. Allowed: ${allowed}`;
    if (named.every((name) => fields.has(name))) {
      for (const name of named) {
        const { input, error } = fields.get(name);
        input.setAttribute("aria-invalid", "true");
        const sum = named.length > 1 ? `${named.map(readable).join(" + ")}: ` : "";
        error.textContent = `${sum}${text}`.replace(/^./, (letter) => letter.toUpperCase());
      }
    } else others.push(`${column}: ${text}`);
  }
  if (!faults.length) others.push(message);
  if (others.length) {
    problems.replaceChildren(...others.map((text) => element("p", {}, text)));
    problems.hidden = false;
  }
  (others.length ? problems : form.querySelector("[aria-invalid]")).focus();
  answer.replaceChildren(element("h2", {}, "Answer"), element("p", {}, "The row was refused, and there is no answer."));
}

function reason({ column, towards, log_odds: odds, probability }) {
  const size = odds === undefined ? `${numeral(Math.abs(probability) * 100, 3)} percentage points` : `${numeral(Math.abs(odds), 3)} in log odds`;
  return element("li", {}, element("strong", {}, column.split(" + ").map(readable).join(" + ")), ` towards ${towards}, by ${size}`);
}

function show({ label, probability, threshold, moved, version: number }, stage) {
  const { title, enum: [, positive] } = schema.$defs.label;
  const percent = (share) => `${(share * 100).toFixed(1)} %`;
  const fill = element("div", { class: "fill" });
  const mark = element("div", { class: "threshold" });
  fill.style.width = `${probability * 100}%`;
  mark.style.left = `${threshold * 100}%`;
  const reasons = moved.length
    ? [element("h3", {}, "What moved it most"), element("ol", {}, ...moved.map(reason))]
    : [element("p", {}, "No column moved it.")];
  answer.replaceChildren(
    element("h2", {}, "Answer"),
    element("p", { class: "label" }, `${readable(title)}: `, element("strong", {}, `${label}`)),
    element("p", {}, `Probability of ${positive}: `, element("strong", {}, percent(probability))),
    element("div", { class: "bar", "aria-hidden": "true" }, fill, mark),
    element("p", { class: "muted" }, `The answer is ${positive} from ${percent(threshold)} on.`),
    ...reasons,
    element("p", { class: "muted" }, `Answered by version ${number} in ${stage}.`),
  );
  answer.scrollIntoView({ block: "nearest" });
}

let stage = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  forget();
  const row = Object.fromEntries([...fields].map(([name, { get }]) => [name, get()]));
  const body = oneLine({ dataframe_records: [row], params: { output: "detail" } });
  let reply;
  let content;
  try {
    reply = await fetch(address("invocations"), { method: "POST", headers: { "Content-Type": "application/json" }, body });
    content = await reply.json();
  } catch {
    refuse({ message: "The server does not answer. Ask again." });
    return;
  }
  // Another version may have taken over, perhaps with other columns.
  const number = reply.headers.get("x-model-version");
  if (number && number !== version) stage = await follow();
  if (reply.ok) show(content.predictions[0], stage);
  else refuse(content);
  same.replaceChildren(element("summary", {}, "The same with curl"), command("POST", "invocations", "application/json", body));
  same.hidden = false;
});

form.addEventListener("reset", (event) => {
  event.preventDefault();
  forget();
  for (const [name, { set }] of fields) set(schema.examples[0][name]);
});

stage = await follow();
