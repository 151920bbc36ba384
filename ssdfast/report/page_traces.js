// The trace browser: choose a trace, read its tokens, move between them.

const KL_EDGES = [1e-4, 1e-3, 1e-2, 1e-1, 1];
const klLevel = (kl) => KL_EDGES.filter((edge) => kl >= edge).length;

// What the positions can be filtered by, as they are named to the reader.
const KINDS = {
  "": "of every class", lock: "locks", strict: "locks: strict", top1_changed: "locks: top-1 changed", self_correction: "locks: self-correction",
  fork: "forks", diffuse: "diffuse", mixed: "mixed",
};

const GRADES = {
  "": "all", correct: "correct", incorrect: "incorrect", ungraded: "not graded",
};

const ORDERS = { problem: "by problem", down: "largest mean KL first", up: "smallest mean KL first" };

const state = { listed: [], trace: null, position: 0, jumps: 0, colour: "class", kind: "", tokenClass: "" };

const aboutOf = (trace) => data.about[trace.about] ?? { prompt: "", question: "", gold: "", correct: null };

const gradeOf = (trace) => ({ true: "correct", false: "incorrect" })[aboutOf(trace).correct] ?? "ungraded";

function inOrder(traces) {
  const sign = { down: -1, up: 1 }[byId("order").value] ?? 0;
  return sign ? traces.toSorted((x, y) => sign * ((x.kl ?? -1) - (y.kl ?? -1))) : traces;
}

function ofKind(columns, position) {
  const { kind } = state;
  if (state.tokenClass !== "" && columns.tokenClass[position] !== Number(state.tokenClass)) return false;
  if (kind === "") return true;
  const own = CLASS_OF[columns.class[position]];
  if (!["strict", "top1_changed", "self_correction"].includes(kind)) return own === kind;
  const bits = kind === "self_correction" ? columns.selfCorrection : columns.top1Changed;
  return own === "lock" && bits[position] === (kind === "strict" ? 0 : 1);
}

const total = (counts) => counts.reduce((sum, n) => sum + n, 0);

async function columnsOf(trace) {
  if (!trace.columns) {
    const columns = { base: {}, trained: {}, candidates: {}, more: {} };
    const sizeOf = (name, values) => (name.startsWith("candidates.") ? total(values.count)
      : name.startsWith("more.") && !["more.count", "more.kept"].includes(name) ? total(values["more.count"]) : trace.positions);
    const [codes, values] = [{}, {}];
    decode(await inflate(data.shared[trace.shared]), data.browser.columns.shared, sizeOf, codes, values);
    decode(await inflate(trace.packed), data.browser.columns.own, sizeOf, codes, values);
    for (const [name, column] of Object.entries(values)) {
      const [group, own] = name.split(".");
      if (own) columns[group][own] = column;
      else columns[name] = column;
    }
    joinCandidates(columns);
    const shift = (position) => columns.kl[position] ?? -1;
    columns.byShift = columns.token.map((_, position) => position).sort((x, y) => shift(y) - shift(x));
    trace.text = columns.token.map((token) => data.tokens.texts[token]).join("");
    trace.columns = columns;
  }
  return trace.columns;
}

// Puts the candidates that one trained model adds behind those of the baseline, position by position.
function joinCandidates(columns) {
  const { candidates, more, count } = columns;
  const joined = Object.fromEntries(Object.keys(candidates).map((name) => [name, []]));
  let [start, startMore] = [0, 0];
  columns.candidateStart = count.map((n, position) => {
    const at = joined.token.length;
    for (const [name, values] of Object.entries(joined)) {
      values.push(...candidates[name].slice(start, start + n), ...more[name].slice(startMore, startMore + more.count[position]));
    }
    start += n;
    startMore += more.count[position];
    return at;
  });
  columns.candidates = joined;
  columns.kept = columns.kept.map((n, position) => (n === null ? null : n + more.kept[position]));
  columns.count = count.map((n, position) => n + more.count[position]);
}

async function openTrace(trace, position = 0, focus = false) {
  state.trace = trace;
  state.jumps = 0;
  try {
    await columnsOf(trace);
  } catch (error) {
    byId("flow").textContent = `This browser cannot open the trace: ${error.message}`;
    return;
  }
  if (state.trace !== trace) return;  // another one was chosen meanwhile
  drawAbout(trace);
  drawFlow(trace);
  drawStrip(trace);
  markListed();
  select(Math.min(Math.max(position, 0), trace.positions - 1), focus);
}

function stepTrace(step) {
  const at = state.listed.indexOf(state.trace);
  const trace = state.listed[Math.min(Math.max(at + step, 0), state.listed.length - 1)];
  if (trace && trace !== state.trace) openTrace(trace);
}

// Texts are put together at the first search, which may take a second for long traces.
async function search() {
  drawList();
  if (byId("search").value === "" || data.traces.every((trace) => trace.text !== undefined)) return;
  byId("matches").textContent = "reading the traces …";
  await (state.reading ??= readAll());
  drawList();
}

async function readAll() {
  for (const trace of data.traces) await columnsOf(trace).catch(() => (trace.text = ""));
}

function drawList() {
  const query = byId("search").value.toLowerCase();
  const label = byId("label").value;
  const grade = byId("grade").value;
  state.listed = inOrder(data.traces.filter((trace) => (label === "" || trace.label === label)
    && (state.kind === "" || trace.kinds[state.kind])
    && (grade === "" || gradeOf(trace) === grade)
    && [trace.id, trace.problem, aboutOf(trace).question, trace.text ?? ""].some((text) => text.toLowerCase().includes(query))));
  byId("matches").textContent = `${state.listed.length} of ${data.traces.length} traces`;
  byId("list").replaceChildren(...state.listed.map((trace) => html("li", {},
    html("button", { type: "button", onclick: () => openTrace(trace) },
      html("span", { class: "trace-id" }, trace.id),
      html("span", { class: "small" }, `${data.browser.compare ? "" : "by "}${trace.label} · ${trace.positions.toLocaleString("en-US")} tokens · KL ${number(trace.kl)}`, gradeMark(trace)),
      excerpt(trace.text ?? "", query)))));
  markListed();
}

const gradeMark = (trace) => (gradeOf(trace) === "ungraded" ? null : html("span", { class: `grade ${gradeOf(trace)}` }, gradeOf(trace)));

// What the trace answers.
function drawAbout(trace) {
  const { prompt, question, gold } = aboutOf(trace);
  const row = (name, text) => (text === "" ? null : html("div", {}, html("dt", {}, name), html("dd", {}, text)));
  byId("about").replaceChildren(
    html("dl", {}, row("Question", question), row("Gold answer", gold),
      html("div", {}, html("dt", {}, "Grade"), html("dd", {}, gradeMark(trace) ?? "not graded"))),
    ...(prompt === "" ? [] : [html("details", {}, html("summary", {}, "Prompt"), html("pre", {}, prompt))]));
}

// The first match of the search in the text, with a little text around it.
function excerpt(text, query) {
  const at = query ? text.toLowerCase().indexOf(query) : -1;
  if (at < 0) return null;
  const end = at + query.length;
  return html("span", { class: "excerpt" }, plainToken(text.slice(Math.max(0, at - 18), at)),
    html("mark", {}, plainToken(text.slice(at, end))), plainToken(text.slice(end, end + 30)));
}

function markListed() {
  [...byId("list").children].forEach((item, index) => {
    const current = state.listed[index] === state.trace;
    item.firstChild.toggleAttribute("data-current", current);
    if (current) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
    if (current) scrollInside(byId("list"), item);
  });
}

function drawFlow({ columns }) {
  const nodes = [];
  columns.token.forEach((token, position) => {
    const text = data.tokens.texts[token];
    const kind = CLASS_OF[columns.class[position]];
    const changed = columns.top1Changed[position] === 1 && kind === "lock" ? "top1-changed" : "";
    nodes.push(html("span", {
      class: `token ${kind} kl-${klLevel(columns.kl[position] ?? 0)} ${changed} ${ofKind(columns, position) ? "" : "other"}`,
      role: "option", tabindex: "-1", "data-position": position, "aria-selected": "false",
    }, ...tokenNodes(text)));
    if (text.includes("\n")) nodes.push(html("br"));
  });
  byId("flow").replaceChildren(...nodes);
}

// The whole trace at a glance: one bar per token, its height the KL on a logarithmic scale.
function drawStrip({ columns }) {
  const height = (kl) => Math.min(1, Math.max(0.03, (Math.log10(Math.max(kl ?? 0, 1e-9)) + 4) / 4.5));
  const path = columns.kl.map((kl, x) => `M${x} 1V${(1 - height(kl)).toFixed(3)}h.8V1z`).join("");
  const count = columns.token.length;
  byId("strip").replaceChildren(svg("svg", { viewBox: `0 0 ${count} 1`, preserveAspectRatio: "none" },
    svg("path", { d: path }), svg("rect", { id: "strip-here", width: Math.max(1, count / 300), height: 1 })));
}

const tokenNode = (position) => byId("flow").querySelector(`[data-position="${position}"]`);

function select(position, focus = true) {
  const old = byId("flow").querySelector("[aria-selected=true]");
  if (old) {
    old.setAttribute("aria-selected", "false");
    old.tabIndex = -1;
  }
  const node = tokenNode(position);
  state.position = position;
  node.setAttribute("aria-selected", "true");
  node.setAttribute("aria-label", describe(state.trace, position));
  node.tabIndex = 0;
  if (focus) node.focus({ preventScroll: true });
  scrollInside(byId("flow"), node);
  byId("strip-here").setAttribute("x", position);
  drawDetail(state.trace, position);
  hideTip();
  const where = new URLSearchParams({ trace: state.trace.id, by: state.trace.label, position });
  history.replaceState(null, "", `#${where}`);
}

// Scrolls the box alone, never the page.
function scrollInside(box, node) {
  const [outer, inner] = [box.getBoundingClientRect(), node.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) {
    box.scrollTop += inner.top - outer.top - outer.height / 3;
  }
}

// Positions of other kinds than the selected one are dimmed.
function chooseKind() {
  state.kind = byId("kind").value;
  state.tokenClass = byId("token-class").value;
  state.jumps = 0;
  const { columns } = state.trace ?? {};
  if (columns) {
    byId("flow").querySelectorAll(".token").forEach((node, position) => node.classList.toggle("other", !ofKind(columns, position)));
  }
  drawList();
}

// The same trace and position under another trained model.
function openTwin(label) {
  const twin = data.traces.find((trace) => trace.id === state.trace?.id && trace.label === label);
  if (twin) openTrace(twin, state.position);
}

function otherModel() {
  if (!data.browser.compare) return;
  const options = byId("label").options;
  byId("label").selectedIndex = (byId("label").selectedIndex + 1) % options.length;
  drawList();
  openTwin(byId("label").value);
}

// To the largest KL among the positions of the selected kind of the trace; pressed again there, to the next largest.
function jumpToLargest() {
  const { columns } = state.trace ?? {};
  const byShift = columns?.byShift.filter((position) => ofKind(columns, position));
  if (!byShift?.length) return;
  const there = state.jumps > 0 && byShift[state.jumps - 1] === state.position;
  const jump = there && state.jumps < byShift.length ? state.jumps : 0;
  select(byShift[jump]);
  state.jumps = jump + 1;
}

// The nearest token on the line above (-1) or below (+1).
function onNextLine(step) {
  const nodes = [...byId("flow").querySelectorAll(".token")];
  const here = nodes[state.position].getBoundingClientRect();
  const middle = here.left + here.width / 2;
  let [best, line, distance] = [state.position, null, Infinity];
  for (let i = state.position + step; i >= 0 && i < nodes.length; i += step) {
    const there = nodes[i].getBoundingClientRect();
    if (Math.abs(there.top - here.top) < 4) continue;
    line ??= there.top;
    if (Math.abs(there.top - line) > 4) break;
    const off = Math.abs(there.left + there.width / 2 - middle);
    if (off < distance) [best, distance] = [i, off];
  }
  return best;
}

function showTip(node) {
  const tip = byId("tip");
  tip.textContent = describe(state.trace, Number(node.dataset.position));
  tip.hidden = false;
  const [at, size] = [node.getBoundingClientRect(), tip.getBoundingClientRect()];
  const above = at.top - size.height - 6;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - size.width - 4))}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}
