// The explorer. Text from the tables reaches the page through textContent alone.

const byId = (id) => document.getElementById(id);
const FIRST = ["text", "trace_id", "trace_source", "position", "kl_trained_base", "position_class", "correct", "grade", "answer", "gold", "problem_id", "checkpoint", "finish_reason", "length"];
const KL_STEPS = [0.003, 0.02, 0.1, 0.4, 1.2];
let tables = [], state = { table: "", filters: [], sort: "", offset: 0, trace: "", source: "", other: "" }, turns = 0;

function element(tag, attributes = {}, ...children) {
  const node = tag.includes(":") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : String(value);
  if (Number.isInteger(value)) return String(value);
  return (Math.abs(value) < 0.001 && value !== 0 ? value.toExponential(1) : value.toPrecision(3)).replace("-", "−");
}

const query = (path, values) => `/api/${path}?${new URLSearchParams(values)}`;
const selection = () => ({ table: state.table, filters: JSON.stringify(state.filters) });

async function ask(path, values) {
  const answer = await fetch(query(path, values));
  const answered = await answer.json();
  if (!answer.ok) throw new Error(answered.error || answer.statusText);
  return answered;
}

function status(text, error = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", error);
}

const current = () => tables.find((table) => table.name === state.table);

function columns() {
  const names = current().columns.map((column) => column.name).concat(current().text ? ["text"] : []);
  const place = (name) => { const i = FIRST.indexOf(name); return i < 0 ? FIRST.length : i; };
  return names.map((name, i) => [name, i]).sort((a, b) => place(a[0]) - place(b[0]) || a[1] - b[1]).map(([name]) => name);
}

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => element("option", { value: name, selected: name === chosen }, name || "–")));
}

function remember() {
  history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(state))}`);
}

function chooseTable() {
  const names = columns(), numbers = current().columns.filter((column) => column.number).map((column) => column.name);
  options(byId("table"), tables.map((table) => table.name), state.table);
  options(byId("column"), names);
  options(byId("x"), current().columns.map((column) => column.name), numbers.includes("kl_trained_base") ? "kl_trained_base" : current().text ? "" : names.includes("grade") ? "grade" : numbers[0]);
  options(byId("y"), ["", ...numbers]);
}

function chips() {
  byId("chips").replaceChildren(...state.filters.map((filter, i) => element("button", {
    type: "button", title: "Remove this filter",
    onclick: () => { state.filters.splice(i, 1); state.offset = 0; refresh(); },
  }, `${filter.join(" ")} ×`)));
  byId("parquet").href = query("export", { ...selection(), format: "parquet" });
  byId("html").href = query("export", { ...selection(), format: "html" });
}

async function refresh() {
  remember();
  chips();
  const turn = ++turns;
  status("Reading …");
  try {
    const { rows, page } = await ask("rows", { ...selection(), sort: state.sort, offset: state.offset });
    if (turn !== turns) return;
    showRows(rows);
    if (!window.firstScreen) window.firstScreen = performance.now();
    byId("back").disabled = state.offset === 0;
    byId("next").disabled = rows.length < page;
    byId("page").textContent = rows.length ? `rows ${(state.offset + 1).toLocaleString("en-US")} to ${(state.offset + rows.length).toLocaleString("en-US")}` : "no rows";
    const { count } = await ask("count", selection());
    if (turn !== turns) return;
    status(`${count.toLocaleString("en-US")} of ${current().rows.toLocaleString("en-US")} rows`);
    await figure();
  } catch (error) {
    if (turn === turns) status(error.message, true);
  }
}

function showRows(rows) {
  const names = columns(), numeric = new Set(current().columns.filter((column) => column.number).map((column) => column.name));
  const head = names.map((name) => {
    const arrow = state.sort === name ? " ↑" : state.sort === `-${name}` ? " ↓" : "";
    const sort = name === "text" && current().text ? null : () => { state.sort = state.sort === `-${name}` ? name : `-${name}`; state.offset = 0; refresh(); };
    return element("th", { scope: "col", "aria-sort": arrow ? (arrow === " ↑" ? "ascending" : "descending") : null }, element("button", { type: "button", onclick: sort || (() => {}) }, name + arrow));
  });
  byId("rows").tHead.replaceChildren(element("tr", {}, ...head));
  byId("rows").tBodies[0].replaceChildren(...rows.map((row, i) => element("tr", {
    tabindex: i === 0 ? 0 : -1, onclick: () => open(row), onkeydown: (event) => { if (event.key === "Enter") open(row); },
  }, ...names.map((name) => element("td", { class: numeric.has(name) ? "number" : name === "text" && current().text ? "token" : null }, short(row[name]))))));
}

async function open(row) {
  if (current().kind === "positions") {
    Object.assign(state, { trace: row.trace_id, source: row.trace_source });
    await showTrace(row._row);
  } else await showRow(row._row);
}

function panel(title, ...children) {
  byId("detail").replaceChildren(element("h2", {}, title), ...children.filter((child) => child !== null));
  byId("detail").hidden = false;
}

function close() {
  byId("detail").hidden = true;
  state.trace = "";
  remember();
  byId("rows").tBodies[0].querySelector("tr")?.focus();
}

function list(values, skip = []) {
  const entries = Object.entries(values).filter(([name, value]) => !skip.includes(name) && !Array.isArray(value));
  return element("dl", {}, ...entries.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, short(value))]));
}

async function showRow(key) {
  try {
    const row = await ask("row", { table: state.table, row: key });
    const pieces = ["prompt_tokens", "completion_tokens"].filter((name) => row[name]).map((name) => [
      element("h3", {}, name === "prompt_tokens" ? "Prompt" : "Completion, by token"),
      element("p", { class: "flow" }, ...row[name].map((text, i) => element("span", { class: i % 2 ? "kl1" : null }, text))),
    ]);
    const text = row.text ? [element("h3", {}, "Text"), element("p", { class: "flow" }, row.text)] : [];
    panel(row.trace_id || row.problem_id || "Row", ...text, ...pieces.flat(), list(row, ["text"]));
    byId("detail").focus();
  } catch (error) { status(error.message, true); }
}

const step = (kl) => KL_STEPS.filter((least) => kl !== null && kl >= least).length;

function flow(positions, table, chosen) {
  return element("p", { class: "flow" }, ...positions.map((position) => element("button", {
    type: "button", class: `kl${step(position.kl_trained_base)}`, "aria-current": position._row === chosen ? "true" : null,
    title: `${position.position}: shift ${short(position.kl_trained_base)} nats, ${position.position_class}`,
    onclick: (event) => showPosition(table, position._row, event.currentTarget),
  }, position.text || `⟨${position.token_id}⟩`)));
}

async function showTrace(chosen = "") {
  remember();
  try {
    const positions = await ask("trace", { table: state.table, trace: state.trace, source: state.source });
    const others = tables.filter((table) => table.kind === "positions" && table.name !== state.table).map((table) => table.name);
    const beside = element("select", { "aria-label": "Beside", onchange: (event) => { state.other = event.target.value; showTrace(chosen); } });
    options(beside, ["", ...others], state.other);
    const second = state.other && others.includes(state.other) ? await ask("trace", { table: state.other, trace: state.trace, source: state.source }) : null;
    panel(state.trace,
      element("p", { class: "small" }, "Darker tokens shifted more. ", others.length ? element("label", {}, "Beside ", beside) : null),
      second ? element("h3", {}, state.table) : null, flow(positions, state.table, chosen),
      second ? element("h3", {}, state.other) : null, second ? flow(second, state.other, "") : null,
      element("div", { id: "position" }));
    if (chosen) await showPosition(state.table, chosen, byId("detail").querySelector("[aria-current]"));
    byId("detail").focus();
  } catch (error) { status(error.message, true); }
}

async function showPosition(table, key, button) {
  for (const marked of byId("detail").querySelectorAll("[aria-current]")) marked.removeAttribute("aria-current");
  button?.setAttribute("aria-current", "true");
  try {
    const row = await ask("row", { table, row: key });
    const texts = row.base_top_tokens || (row.base_top_ids || []).map(String);
    const candidates = texts.map((text, i) => element("tr", {}, element("td", {}, text), ...[row.base_top_logprobs, row.trained_logprobs_at_base_top].map((logs) => element("td", {}, logs && logs[i] !== null ? short(Math.exp(logs[i])) : "–"))));
    byId("position").replaceChildren(
      element("h3", {}, `Position ${row.position}: the baseline's candidates`),
      element("table", { class: "candidates" }, element("tr", {}, ...["token", "baseline", "trained"].map((name) => element("th", {}, name))), ...candidates),
      list(row));
  } catch (error) { status(error.message, true); }
}

function axis(low, high, width, y) {
  return [element("svg:text", { x: 0, y }, short(low)), element("svg:text", { x: width, y, "text-anchor": "end" }, short(high))];
}

async function figure() {
  const x = byId("x").value, y = byId("y").value;
  if (!x) return;
  if (y) {
    const answered = await ask("scatter", { ...selection(), x, y });
    const [wide, high] = answered.grid || [1, 1], most = Math.max(1, ...answered.cells.map((cell) => cell[2]));
    const cells = answered.cells.map(([i, j, n]) => element("svg:rect", { class: "bar", x: 40 + (i * 680) / wide, y: 240 - ((j + 1) * 240) / high, width: 680 / wide, height: 240 / high, opacity: 0.12 + (0.88 * Math.log1p(n)) / Math.log1p(most) }, element("svg:title", {}, `${n.toLocaleString("en-US")} rows`)));
    byId("figure").replaceChildren(element("svg:svg", { viewBox: "0 0 760 262", role: "img", "aria-label": `${y} against ${x}` }, ...cells, element("svg:text", { x: 0, y: 12 }, short(answered.y[1])), element("svg:text", { x: 0, y: 238 }, short(answered.y[0])), element("svg:text", { x: 40, y: 258 }, short(answered.x[0])), element("svg:text", { x: 720, y: 258, "text-anchor": "end" }, short(answered.x[1]))));
    return;
  }
  const answered = await ask("histogram", { ...selection(), column: x });
  const bars = answered.texts || answered.counts.map((n, i) => [i, n]), most = Math.max(1, ...bars.map((bar) => bar[1])), width = 760 / Math.max(1, bars.length);
  const drawn = bars.map(([label, n], i) => element("svg:rect", { class: "bar", x: i * width, y: 200 - (200 * n) / most, width: Math.max(1, width - 1), height: (200 * n) / most }, element("svg:title", {}, `${answered.texts ? short(label) : `bin ${label + 1}`}: ${n.toLocaleString("en-US")} rows`)));
  const labels = answered.texts ? (bars.length <= 12 ? bars.map(([label], i) => element("svg:text", { x: i * width, y: 216 }, short(label).slice(0, Math.max(3, width / 7)))) : []) : axis(answered.low, answered.high, 760, 216);
  byId("figure").replaceChildren(element("svg:svg", { viewBox: "0 0 760 222", role: "img", "aria-label": `Histogram of ${x}` }, ...drawn, ...labels));
}

const redraw = () => figure().catch((error) => status(error.message, true));

function keys(event) {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "Escape") { if (typing) event.target.blur(); else close(); }
  else if (event.key === "/" && !typing) { event.preventDefault(); byId("value").focus(); }
  else if (["ArrowDown", "ArrowUp"].includes(event.key) && !typing) {
    const rows = [...byId("rows").tBodies[0].rows], at = rows.indexOf(document.activeElement);
    if (at < 0 && byId("detail").contains(document.activeElement)) return;
    event.preventDefault();
    const next = rows[Math.min(rows.length - 1, Math.max(0, at + (event.key === "ArrowDown" ? 1 : -1)))];
    rows.forEach((row) => { row.tabIndex = row === next ? 0 : -1; });
    next?.focus();
  }
}

async function start() {
  const answered = await ask("tables", {});
  tables = answered.tables;
  byId("run").textContent = answered.name;
  document.title = `${answered.name} – ssdfast view`;
  try { Object.assign(state, JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}")); } catch { /* an address of something else */ }
  if (!current()) Object.assign(state, { table: tables[0].name, filters: [], sort: "", offset: 0, trace: "" });
  chooseTable();
  byId("table").addEventListener("change", (event) => { Object.assign(state, { table: event.target.value, filters: [], sort: "", offset: 0, trace: "", other: "" }); byId("detail").hidden = true; chooseTable(); refresh(); });
  byId("bar").addEventListener("submit", (event) => {
    event.preventDefault();
    state.filters.push([byId("column").value, byId("operator").value, byId("value").value]);
    state.offset = 0;
    byId("value").value = "";
    refresh();
  });
  byId("back").addEventListener("click", () => { state.offset = Math.max(0, state.offset - 60); refresh(); });
  byId("next").addEventListener("click", () => { state.offset += 60; refresh(); });
  byId("x").addEventListener("change", redraw);
  byId("y").addEventListener("change", redraw);
  document.addEventListener("keydown", keys);
  if (state.trace) showTrace();
  await refresh();
}

start().catch((error) => status(error.message, true));
