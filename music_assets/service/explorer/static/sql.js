// The SQL console: an editor, a grid for the result, downloads, a history in the browser, and links that hold the query.

import DataTable from "./vendor/datatables.js";
import {
  basicSetup,
  EditorState,
  EditorView,
  HighlightStyle,
  keymap,
  PostgreSQL,
  Prec,
  setDiagnostics,
  sql,
  syntaxHighlighting,
  tags,
} from "./vendor/sql-editor.js";

const SHOWN_ROWS = 10_000;
const HISTORY_KEY = "sql-history";
const HISTORY_LENGTH = 30;
const NUMERIC = /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DOUBLE|FLOAT|DECIMAL.*)$/;

const element = (id) => document.getElementById(id);
const [editorPlace, status, problem, result] = ["editor", "status", "problem", "result"].map(element);
const [runButton, stopButton] = ["run", "stop"].map(element);
let running = null;

// --- Editor. It lives in a shadow root, so that its styles need no exception from the security policy.

const schema = Object.fromEntries(
  [...document.querySelectorAll("[data-table]")].map((table) => [
    table.dataset.table,
    [...table.querySelectorAll("[data-column]")].map((column) => column.dataset.column),
  ]),
);
const highlighting = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--code-keyword)" },
  { tag: tags.string, color: "var(--code-string)" },
  { tag: tags.number, color: "var(--code-number)" },
  { tag: tags.comment, color: "var(--pico-muted-color)", fontStyle: "italic" },
]);
const theme = EditorView.theme({
  "&": { backgroundColor: "var(--pico-form-element-background-color)", color: "var(--pico-color)", fontSize: "0.95rem" },
  "&.cm-focused": { outline: "2px solid var(--pico-primary)" },
  ".cm-scroller": { minHeight: "11rem", maxHeight: "50vh", overflow: "auto" },
  ".cm-content": { caretColor: "var(--pico-color)" },
  ".cm-cursor": { borderLeftColor: "var(--pico-color)" },
  ".cm-gutters": { backgroundColor: "transparent", color: "var(--pico-muted-color)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--code-line)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--code-selection)",
  },
  ".cm-tooltip": { backgroundColor: "var(--pico-card-background-color)", color: "var(--pico-color)", border: "1px solid var(--pico-muted-border-color)" },
});
// Chromium gives text typed over a selection a style attribute, which the security policy forbids.
const replaceSelection = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { from, to, empty } = view.state.selection.main;
    if (empty || event.inputType !== "insertText" || !event.data) return false;
    const insert = () => view.state.replaceSelection(event.data);
    const isHandled = view.state.facet(EditorView.inputHandler).some((handle) => handle(view, from, to, event.data, insert));
    if (!isHandled) view.dispatch(insert(), { userEvent: "input.type" });
    return true;
  },
});
const shadow = editorPlace.attachShadow({ mode: "open" });
const editor = new EditorView({
  state: EditorState.create({
    doc: editorPlace.dataset.sql,
    extensions: [
      Prec.highest(keymap.of([{ key: "Mod-Enter", run: () => (run(), true) }])),
      basicSetup,
      sql({ dialect: PostgreSQL, schema, upperCaseKeywords: true }),
      syntaxHighlighting(highlighting),
      theme,
      replaceSelection,
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({ "aria-label": "SQL", "aria-multiline": "true" }),
    ],
  }),
  parent: shadow,
  root: shadow,
});

function currentSql() {
  return editor.state.doc.toString();
}

function setSql(text) {
  editor.dispatch({ changes: { from: 0, to: editor.state.doc.length, insert: text } });
  editor.focus();
}

// --- Addresses. The query is in the fragment, which browsers do not send, so its length has no limit.

function queryOfAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("query");
}

function setAddress() {
  history.replaceState(null, "", `#${new URLSearchParams({ query: currentSql() })}`);
}

window.addEventListener("hashchange", openAddress);

function openAddress() {
  const text = queryOfAddress();
  if (text === null) return;
  setSql(text);
  run();
}

element("share").addEventListener("click", async () => {
  setAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    status.textContent = "The link is copied. It opens the console with this query.";
  } catch {
    status.textContent = "The address of this page now holds the query. Copy it from the address bar.";
  }
});

// --- Running

runButton.addEventListener("click", run);
stopButton.addEventListener("click", () => running?.abort());

async function run() {
  const text = currentSql();
  running?.abort();
  const own = new AbortController();
  running = own;
  setAddress();
  clearProblem();
  setRunning(true);
  try {
    const started = performance.now();
    const response = await send(text, "json", SHOWN_ROWS, own.signal);
    const body = await response.json();
    remember(text);
    show(body, performance.now() - started);
  } catch (error) {
    showProblem(error, text);
  } finally {
    if (running === own) {
      running = null;
      setRunning(false);
    }
  }
}

async function send(text, format, limit, signal) {
  const response = await fetch(`/query?format=${format}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ query: text, ...(limit && { limit }) }),
    signal,
  });
  if (response.status === 401) location.assign(`/sign-in?${new URLSearchParams({ after: `/sql${location.hash}` })}`);
  if (!response.ok) throw await response.json();
  return response;
}

function setRunning(isRunning) {
  runButton.setAttribute("aria-busy", isRunning);
  stopButton.disabled = !isRunning;
  if (isRunning) status.textContent = "Running";
}

// --- Result

function show({ columns, rows, truncated, elapsed_ms: elapsed, data_version: version }, roundTrip) {
  const count = `${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}`;
  const cut = truncated ? ` The result is truncated: these are its first ${rows.length.toLocaleString("en")} rows.` : "";
  status.textContent = `${count} in ${elapsed.toFixed(1)} ms (${roundTrip.toFixed(0)} ms with transfer), data version ${version}.${cut}`;
  const table = document.createElement("table");
  table.className = "compact stripe nowrap";
  const header = table.createTHead().insertRow();
  for (const { name, type } of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    cell.title = type;
    header.append(cell);
  }
  table.createTBody();
  result.replaceChildren(table);
  new DataTable(table, {
    data: rows,
    columns: columns.map(({ type }, index) => ({
      data: index,
      type: NUMERIC.test(type) ? "num" : "string",
      className: NUMERIC.test(type) ? "dt-right" : "dt-left",
      render: (value, use) => (use === "display" ? escaped(value) : sortable(value)),
    })),
    order: [],
    deferRender: true,
    autoWidth: false,
    pageLength: 50,
    lengthChange: false,
    language: { search: "Filter rows", emptyTable: "The query returned no rows." },
  });
}

function escaped(value) {
  if (value === null) return '<span class="muted">NULL</span>';
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

function sortable(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : value;
}

// --- Problems

function clearProblem() {
  problem.replaceChildren();
  editor.dispatch(setDiagnostics(editor.state, []));
}

function showProblem(error, text) {
  if (error.name === "AbortError") {
    status.textContent = "Stopped.";
    return;
  }
  status.textContent = "";
  const { title = "The service cannot be reached", detail = "Check that it is running, then try again.", position } = error;
  const box = document.createElement("div");
  box.className = "error";
  const place = position ? ` (line ${position.line}, column ${position.column})` : "";
  box.append(paragraph(`${title}${place}`, "strong"), paragraph(detail, "span"));
  problem.replaceChildren(box);
  result.replaceChildren();
  if (position) markError(position.offset, detail, text);
}

function paragraph(text, tag) {
  const line = document.createElement("p");
  const inner = document.createElement(tag);
  inner.textContent = text;
  line.append(inner);
  return line;
}

/** Mark the word at an offset that counts characters, where the editor counts UTF-16 units. */
function markError(offset, message, text) {
  if (text !== currentSql()) return;
  const from = Math.min([...text].slice(0, offset).join("").length, text.length);
  const word = /^\w+|^./.exec(text.slice(from))?.[0] ?? "";
  const to = Math.max(from + word.length, Math.min(from + 1, text.length));
  editor.dispatch(setDiagnostics(editor.state, [{ from: Math.min(from, Math.max(to - 1, 0)), to, severity: "error", message }]));
  editor.dispatch({ selection: { anchor: from }, scrollIntoView: true });
  editor.focus();
}

// --- Downloads

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => download(button.dataset.download, button));
}

async function download(format, button) {
  const text = currentSql();
  clearProblem();
  button.setAttribute("aria-busy", "true");
  try {
    const response = await send(text, format);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = `result.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    const cut = response.headers.get("X-Truncated") === "true" ? " The service truncated the result." : "";
    status.textContent = `${Number(response.headers.get("X-Row-Count")).toLocaleString("en")} rows in result.${format}.${cut}`;
  } catch (error) {
    showProblem(error, text);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

// --- History

function readHistory() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY_KEY)) ?? [];
  } catch {
    return [];
  }
}

function remember(text) {
  const entries = [text, ...readHistory().filter((each) => each !== text)].slice(0, HISTORY_LENGTH);
  try {
    localStorage.setItem(HISTORY_KEY, JSON.stringify(entries));
  } catch {
    // The browser stores nothing for this page; the history is then empty.
  }
  showHistory();
}

function showHistory() {
  const entries = readHistory().map((text) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "history-entry";
    button.textContent = text;
    button.addEventListener("click", () => setSql(text));
    item.append(button);
    return item;
  });
  if (entries.length) element("history").querySelector("ul").replaceChildren(...entries);
}

for (const button of document.querySelectorAll(".toolbar button")) button.disabled = button === stopButton;
showHistory();
openAddress();
