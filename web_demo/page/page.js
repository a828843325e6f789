// The page: sends what is typed to the worker, and shows what the worker finds.

const DEBOUNCE_MS = 60;
const REMEMBER_MS = 500;

const element = (id) => document.getElementById(id);
const address = new URL(location.href);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });

let ready = false;
let busy = false;
let shown = "";
let typing;
let remembering;

worker.onmessage = ({ data }) => handlers[data.type](data);
worker.onerror = (event) => handlers.error({ message: event.message || "The worker could not be started." });

const handlers = {
  progress({ loaded, total }) {
    element("bar").value = loaded / total;
    element("loading-text").textContent = `Loading model and runtime: ${mb(loaded)} of ${mb(total)} MB`;
  },
  preparing() {
    element("bar").removeAttribute("value");
    element("loading-text").textContent = "Preparing the model";
  },
  ready({ facts }) {
    ready = true;
    element("loading").hidden = true;
    showFacts(facts);
    element("hint").hidden = Boolean(typed());
    search();
  },
  hits({ text, hits, encodeMs, searchMs }) {
    busy = false;
    show(text, hits, encodeMs, searchMs);
    search();
  },
  error({ message }) {
    busy = false;
    element("loading").hidden = true;
    element("error").hidden = false;
    element("error").textContent = message;
  },
};

/** Search for the typed text, unless it is already shown or a search is running. */
function search() {
  const text = typed();
  if (!ready || busy || text === shown) return;
  if (!text) return show("", [], 0, 0);
  busy = true;
  worker.postMessage({ type: "query", text });
}

function show(text, hits, encodeMs, searchMs) {
  shown = text;
  element("hits").dataset.query = text;
  element("times").hidden = !text;
  element("hint").hidden = Boolean(text);
  element("encode-ms").textContent = encodeMs.toFixed(1);
  element("search-ms").textContent = searchMs.toFixed(1);
  element("hits").replaceChildren(
    ...hits.map((hit) => {
      const item = element("hit").content.firstElementChild.cloneNode(true);
      item.dataset.id = hit.id;
      item.querySelector("p").textContent = hit.text;
      item.querySelector("data").value = hit.score;
      item.querySelector("data").textContent = hit.score.toFixed(3);
      item.style.setProperty("--score", Math.max(hit.score, 0));
      return item;
    }),
  );
  for (const example of element("examples").children) {
    example.setAttribute("aria-pressed", example.textContent === text);
  }
  clearTimeout(remembering);
  remembering = setTimeout(remember, REMEMBER_MS);
}

/** Put the query into the address, so that it can be shared and reloaded. */
function remember() {
  address.searchParams.delete("q");
  if (shown) address.searchParams.set("q", shown);
  history.replaceState(null, "", address);
}

function showFacts(facts) {
  const teacher = facts.teacher.split("/").at(-1);
  const count = facts.documents.toLocaleString("en");
  for (const place of document.querySelectorAll(".teacher")) place.textContent = teacher;
  for (const place of document.querySelectorAll(".count")) place.textContent = count;
  for (const place of document.querySelectorAll(".size")) place.textContent = `${mb(facts.modelBytes)} MB`;
  element("dim").textContent = facts.dim;
  element("runtime").textContent = "onnxruntime-web";
  element("wasm").textContent = `${facts.version}, wasm of ${mb(facts.wasmBytes)} MB`;
  element("load").textContent = `${(facts.prepareMs / 1000).toFixed(1)} s`;
  element("download").textContent = `after a download of ${(facts.downloadMs / 1000).toFixed(1)} s`;
  showThreads(facts.threads);
  element("facts").hidden = false;
  document.body.dataset.state = "ready";
}

/** Show buttons that load this page with another number of threads, if the browser allows threads. */
function showThreads(threads) {
  const most = crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const counts = [...new Set([1, 2, 4, threads])].filter((count) => count <= most || count === threads);
  element("threads").replaceChildren(
    ...counts.sort((a, b) => a - b).map((count) => {
      const choice = button(count, () => {
        remember();
        address.searchParams.set("threads", count);
        location.assign(address);
      });
      choice.setAttribute("aria-pressed", count === threads);
      return choice;
    }),
  );
  element("no-threads").hidden = crossOriginIsolated;
}

async function showExamples() {
  const response = await fetch("/examples.json");
  const examples = response.ok ? await response.json() : [];
  element("examples").replaceChildren(
    ...examples.map((text) =>
      button(text, () => {
        element("query").value = text;
        search();
      }),
    ),
  );
}

function button(label, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.onclick = action;
  return made;
}

function typed() {
  return element("query").value.trim();
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(1);
}

/** The number of threads in the address, else half of the cores but at most 4; one if the browser allows no threads. */
function threadsWanted() {
  if (!crossOriginIsolated) return 1;
  const asked = Number.parseInt(address.searchParams.get("threads") ?? "", 10);
  return asked >= 1 && asked <= 16 ? asked : Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2));
}

element("query").value = address.searchParams.get("q") ?? element("query").value;
element("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, DEBOUNCE_MS);
});
element("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
showExamples();
worker.postMessage({ type: "load", threads: threadsWanted() });
