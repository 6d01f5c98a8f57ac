// What both pages need: elements, addresses, a command for the shell, and the wait for a first version.

const AGAIN = 5000; // milliseconds until a server that has no version yet is asked again

/** An element with attributes and children; an attribute that is null or false is left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** The full address of a path of the server, which may be behind a prefix. */
export function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

/** A column's name as people write it. */
export function readable(name) {
  return name.replaceAll("_", " ").replace(/([a-z])(?=[A-Z])/g, "$1 ");
}

/** A number with separators, as the pages are in English. */
export function numeral(value, digits = 12) {
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
}

/** JSON in one line that can be broken between its parts. */
export function oneLine(value) {
  return JSON.stringify(value, null, 1).replace(/\n */g, " ");
}

/** A command for curl, with a button that copies it. */
export function command(method, path, contentType, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl -s ${quoted(address(path))}`];
  if (method !== "GET") parts.push(`-H 'Content-Type: ${contentType}'`, `--data-binary ${quoted(body)}`);
  const code = element("code", {}, parts.join(" \\\n  "));
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch { // the page is not from this machine and not encrypted, or the browser forbids it
      getSelection().selectAllChildren(code);
      button.textContent = "Selected: copy it with your keyboard";
    }
  });
  return element("div", { class: "command" }, element("pre", {}, code), button);
}

/** What the server has at a path, as JSON with the version that it is of; asks until there is one. */
export async function loaded(path) {
  const status = document.getElementById("served");
  for (;;) {
    try {
      const reply = await fetch(address(path));
      const body = await reply.json();
      if (reply.ok) return { body, version: reply.headers.get("x-model-version") };
      status.textContent = `${body.message}. It is asked again every ${AGAIN / 1000} seconds.`;
    } catch {
      status.textContent = `The server does not answer. It is asked again every ${AGAIN / 1000} seconds.`;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}
