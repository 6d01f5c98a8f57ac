// The OpenAPI document as one page: nothing folds, so that the browser's own search finds everything.

import { command, element, loaded, oneLine } from "./page.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const { body: api } = await loaded("openapi.json");
const shown = new Set(); // names of the schemas that are on the page in full
const code = (text) => element("code", {}, text);

function resolved(part) {
  if (!part?.$ref) return part;
  return part.$ref.split("/").slice(1).reduce((inner, key) => inner[key], api);
}

const nameOf = (part) => part.$ref?.split("/").at(-1);

/** What a value may be instead of one kind. */
const choices = (schema) => (schema.type ? [] : schema.oneOf ?? schema.anyOf ?? []);

/** What kind of value a schema allows, in words. */
function kind(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (choices(schema).length) return "one of";
  const name = [schema.type ?? "anything"].flat().join(" or ");
  const range = ["minimum", "maximum", "maxItems", "pattern", "format"].filter((key) => key in schema);
  return [name, ...range.map((key) => `${key} ${schema[key]}`)].join(", ");
}

/** A schema in full: a line, and below it a list of what it is made of. */
function shape(part) {
  const name = nameOf(part);
  const id = `schema-${name}`;
  if (name && shown.has(name)) return element("span", {}, element("a", { href: `#${id}` }, name));
  if (name) shown.add(name);
  const schema = resolved(part);
  const made = element("span", name ? { id } : {}, ...(name ? [element("strong", {}, name), ": "] : []), kind(schema));
  if (schema.description) made.append(element("span", { class: "muted" }, `, ${schema.description}`));
  const rows = [];
  for (const [key, property] of Object.entries(schema.properties ?? {})) {
    const mark = schema.required?.includes(key) ? [] : [element("em", {}, " (optional)")];
    rows.push(element("li", {}, code(key), ...mark, ": ", shape(property)));
  }
  for (const choice of choices(schema)) rows.push(element("li", {}, shape(choice)));
  if (schema.items && Object.keys(schema.items).length) rows.push(element("li", {}, "each: ", shape(schema.items)));
  if (rows.length) made.append(element("ul", { class: "shape" }, ...rows));
  return made;
}

const json = (value) => element("pre", {}, element("code", {}, oneLine(value)));

function request(path, content) {
  const made = [];
  for (const [type, { schema, examples = {} }] of Object.entries(content)) {
    made.push(element("h4", {}, "Body as ", code(type)), element("p", {}, shape(schema)));
    for (const { summary, value } of Object.values(examples)) {
      const text = typeof value === "string" ? value : oneLine(value);
      made.push(element("p", { class: "example" }, `${summary}:`), command("POST", path, type, text));
    }
  }
  return made;
}

function answer([status, { description, headers = {}, content = {} }]) {
  const made = [element("p", {}, description)];
  for (const [type, { schema, examples = {} }] of Object.entries(content)) {
    made.push(element("p", {}, code(type), ": ", shape(schema)));
    made.push(...Object.values(examples).map(({ value }) => json(value)));
  }
  const named = Object.entries(headers).flatMap(([name, header]) => [element("dt", {}, code(name)), element("dd", {}, resolved(header).description)]);
  if (named.length) made.push(element("dl", {}, ...named));
  return [element("dt", {}, element("strong", { class: status < 400 ? "good" : "bad" }, status)), element("dd", {}, ...made)];
}

function parameter({ name, in: place, required, schema, description = "" }) {
  return element("li", {}, code(name), ` in the ${place}${required ? "" : ", optional"}: `, shape(schema), description ? `. ${description}` : "");
}

function operation(path, method, { summary, description, parameters = [], requestBody, responses }, shared = []) {
  const id = `${method}-${path}`;
  const made = [element("h2", { id }, `${method.toUpperCase()} `, code(path)), element("p", { class: "lead" }, `${summary}.`)];
  if (description) made.push(element("p", {}, description));
  const all = [...shared, ...parameters];
  if (all.length) made.push(element("h3", {}, "Parameters"), element("ul", {}, ...all.map(parameter)));
  made.push(element("h3", {}, "Request"));
  // The first value that is listed stands for a part of the path.
  const example = all.reduce((url, { name, schema }) => url.replace(`{${name}}`, schema.enum?.[0]), path);
  made.push(...(requestBody ? request(path, requestBody.content) : [command("GET", example)]));
  made.push(element("h3", {}, "Answers"), element("dl", { class: "answers" }, ...Object.entries(responses).flatMap(answer)));
  return element("section", { "aria-labelledby": id }, ...made);
}

const listed = Object.entries(api.paths).flatMap(([path, item]) =>
  METHODS.filter((method) => item[method]).map((method) => ({ path, method, item })));
const links = listed.map(({ path, method, item }) =>
  element("li", {}, element("a", { href: `#${method}-${path}` }, `${method.toUpperCase()} ${path}`), ` ${item[method].summary}`));
document.title = `API of ${api.info.title}`;
document.getElementById("name").textContent = `API of ${api.info.title}`;
document.getElementById("served").textContent = `OpenAPI ${api.openapi}, version ${api.info.version} of the model`;
document.getElementById("document").append(
  element("p", {}, api.info.description, " ", element("a", { href: "openapi.json" }, "The document itself"), "."),
  element("nav", { "aria-label": "Operations" }, element("ul", { class: "operations" }, ...links)),
  ...listed.map(({ path, method, item }) => operation(path, method, item[method], item.parameters)),
);
