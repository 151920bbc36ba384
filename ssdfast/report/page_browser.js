// Ties keys, pointer and address to the trace browser.

const LETTERS = {
  j: () => stepTrace(1), n: () => stepTrace(1), k: () => stepTrace(-1), p: () => stepTrace(-1),
  m: jumpToLargest, o: otherModel, "/": () => byId("search").focus(),
};

const ARROWS = {
  ArrowLeft: () => Math.max(0, state.position - 1),
  ArrowRight: () => Math.min(state.trace.positions - 1, state.position + 1),
  ArrowUp: () => onNextLine(-1),
  ArrowDown: () => onNextLine(1),
  Home: () => 0,
  End: () => state.trace.positions - 1,
};

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || !state.trace?.columns) return;
  if (key === "Escape") hideTip();
  if (target.matches("input:not([type=radio]), select, textarea")) return;
  const atToken = target.closest("#flow");
  if (key in ARROWS && atToken) select(ARROWS[key]());
  else if (key === "Enter" && atToken) select(Number(target.dataset.position));
  else if (key in LETTERS && (target === document.body || target.closest("#traces"))) LETTERS[key]();
  else return;
  event.preventDefault();
}

function drawLegend() {
  const classes = Object.keys(CLASS_LINES).map((name) => html("span", { title: CLASS_LINES[name] }, className(name)));
  const changed = html("span", {}, html("span", { class: "token lock top1-changed" }, "abc"), " lock, top-1 changed");
  const levels = ["0", ...KL_EDGES].map((edge, level) => html("span", { class: `token kl-${level}` }, `${edge}`));
  byId("legend").replaceChildren(...(state.colour === "class"
    ? [...classes, changed]
    : [html("span", {}, "KL in nats, from"), ...levels]));
}

function chooseColour(index) {
  state.colour = ["class", "kl"][index];
  byId("flow").dataset.colour = state.colour;
  byId("legend").dataset.colour = state.colour;
  drawLegend();
}

async function openFromAddress(event) {
  const where = new URLSearchParams(location.hash.slice(1));
  if (event && !where.has("trace")) return;  // a link to a section
  const named = data.traces.find((trace) => trace.id === where.get("trace") && trace.label === where.get("by"));
  const trace = named ?? data.traces[0];
  if (data.browser.compare && trace) byId("label").value = trace.label;
  if (trace) await openTrace(trace, named ? Number(where.get("position")) || 0 : 0);
  if (named) byId("traces").querySelector(".reader").scrollIntoView();
}

function startBrowser() {
  const { every, sample, compare } = data.browser;
  const labels = [...new Set(data.traces.map((trace) => trace.label))];
  byId("label").append(...(every ? [html("option", { value: "" }, every)] : []),
    ...labels.map((label) => html("option", { value: label }, label)));
  byId("label").addEventListener("change", () => {
    drawList();
    if (compare) openTwin(byId("label").value);
  });
  byId("kind").append(...Object.entries(KINDS).map(([value, name]) => html("option", { value }, name)));
  byId("kind").addEventListener("change", chooseKind);
  byId("token-class").append(html("option", { value: "" }, "of every class"),
    ...data.browser.tokenClasses.map((name, value) => html("option", { value }, name)));
  byId("token-class").parentElement.hidden = data.browser.tokenClasses.length < 2;
  byId("token-class").addEventListener("change", chooseKind);
  for (const [name, choices] of [["grade", GRADES], ["order", ORDERS]]) {
    byId(name).append(...Object.entries(choices).map(([value, text]) => html("option", { value }, text)));
    byId(name).addEventListener("change", drawList);
  }
  byId("search").addEventListener("input", search);
  segments(byId("colours"), "colour", ["by class", "by KL"], chooseColour);
  chooseColour(0);
  byId("previous").addEventListener("click", () => stepTrace(-1));
  byId("next").addEventListener("click", () => stepTrace(1));
  byId("largest").addEventListener("click", jumpToLargest);
  byId("other").addEventListener("click", otherModel);
  byId("other").hidden = byId("other-key").hidden = !compare || labels.length < 2;

  const flow = byId("flow");
  flow.addEventListener("click", ({ target }) => {
    const node = target.closest(".token");
    if (node) select(Number(node.dataset.position));
  });
  for (const kind of ["mouseover", "focusin"]) {
    flow.addEventListener(kind, ({ target }) => {
      const node = target.closest(".token");
      if (node) showTip(node);
    });
  }
  for (const kind of ["mouseleave", "focusout", "scroll"]) flow.addEventListener(kind, hideTip);
  byId("strip").addEventListener("click", (event) => {
    const box = byId("strip").getBoundingClientRect();
    select(Math.min(state.trace.positions - 1, Math.floor(state.trace.positions * (event.clientX - box.left) / box.width)));
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", openFromAddress);

  byId("traces").querySelector(".browser").hidden = data.traces.length === 0;
  byId("sample").textContent = `${sample} ${data.browser.leftOut}`;
  drawList();
  openFromAddress();
}
