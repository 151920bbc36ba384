// The figures: fraction along self-distillation, positions by class, intervals by class.

const CLASS_LINES = {
  lock: "One token is nearly certain; the alternatives are distractors.",
  fork: "Several good continuations; none reaches one half.",
  diffuse: "No favourite, and much of the mass outside the top k.",
  mixed: "None of the three.",
};

const LOCK_LINES = {
  strict: "Both models have the same top token.",
  top1_changed: "Training put another token on top.",
  self_correction: "The top token, or the one in the trace, begins a self-correction: Wait, But, Hmm.",
};

const className = (name) =>
  html("span", { class: `class-name ${name}` }, html("b", { "aria-hidden": "true" }, name[0].toUpperCase()), name);

function drawFraction() {
  const { value, ci_low: low, ci_high: high } = data.fraction;
  if (value === null) return;
  const percent = (x) => `${100 * x}%`;
  byId("fraction").append(
    svg("svg", { class: "fraction", role: "img", "aria-label": "Fraction of the shift along self-distillation" },
      svg("rect", { class: "rest", width: "100%", height: 14, y: 6, rx: 2 }),
      svg("rect", { class: "along", width: percent(value), height: 14, y: 6, rx: 2 }),
      low === null ? null : svg("line", { class: "whisker", x1: percent(low), x2: percent(high), y1: 13, y2: 13 }),
      ...[low, high].filter((x) => x !== null).map((x) =>
        svg("line", { class: "whisker", x1: percent(x), x2: percent(x), y1: 2, y2: 24 }))),
    html("p", { class: "fraction-ends small" },
      html("span", {}, "along self-distillation"), html("span", {}, "rest of the shift")));
}

function drawCounts() {
  const total = data.classes.reduce((sum, entry) => sum + entry.positions, 0);
  const fraction = (part, whole) => (whole ? `${(100 * part / whole).toFixed(1)}\u00a0%` : "–");
  let start = 0;
  const bars = data.classes.map(({ name, positions }) => {
    const width = total ? 100 * positions / total : 0;
    const bar = svg("rect", { class: `fill ${name}`, x: `${start}%`, width: `${width}%`, height: "100%" },
      svg("title", {}, `${name}: ${fraction(positions, total)}`));
    const words = width < 4 ? "" : width < 16 ? name[0].toUpperCase() : `${name} ${fraction(positions, total)}`;
    const letter = svg("text", { x: `${start + width / 2}%`, y: 20, class: "on-bar" }, words);
    start += width;
    return svg("g", {}, bar, letter);
  });
  byId("class-bar").append(svg("svg", { class: "stack", role: "img", "aria-label": "Positions by class" }, ...bars));

  const row = (name, line, entry, whole) => html("div", { class: "row" },
    name,
    html("span", { class: "line" }, line),
    html("span", { class: "count" }, entry.positions.toLocaleString("en-US"),
      html("small", {}, fraction(entry.positions, whole))),
    html("span", { class: "count wide" }, html("small", {}, "KL"), entry.kl_trained_base),
    html("span", { class: "count wide" }, html("small", {}, "top-1"), entry.delta_top1_prob));
  byId("class-rows").append(
    ...data.classes.map((entry) => row(className(entry.name), CLASS_LINES[entry.name], entry, total)));
  const locks = data.classes.find((entry) => entry.name === "lock").positions;
  byId("lock-rows").append(...data.locks.map((entry) =>
    row(html("span", { class: "class-name" }, entry.name.replace("top1_", "top-1 ").replace("_", "-")), LOCK_LINES[entry.name], entry, locks)));
}

function drawGroups() {
  const show = (index) => byId("panels").replaceChildren(...data.groups[index].panels.map(panel));
  if (data.groups.length > 1) segments(byId("groups"), "group", data.groups.map((group) => group.name), show);
  show(0);
}

// From a value to its place across a track that holds zero and all of the values.
function scaleOf(values) {
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  const margin = (most - least || 1) * 0.06;
  const from = least < 0 ? least - margin : 0;
  const to = most > 0 ? most + margin : 0;
  return (x) => `${2 + 96 * (x - from) / (to - from || 1)}%`;
}

function panel({ key, title, note, rows }) {
  const ends = rows.flatMap(({ value, ci_low, ci_high }) => [value, ci_low, ci_high]).filter((x) => x !== null);
  const at = scaleOf(ends);
  const figure = html("figure", { class: "panel", "data-metric": key },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, note)),
    ...rows.map((row) => html("div", { class: "interval" },
      row.name === "all" ? html("span", { class: "class-name all" }, "all") : className(row.name),
      intervalMark(row, at),
      html("span", { class: "value" }, row.text))));
  return withDownloads(figure, title, intervalRows(rows), () => rowsSvg(figure));
}

const intervalRows = (rows) =>
  [["name", "value", "ci_low", "ci_high"], ...rows.map(({ name, value, ci_low, ci_high }) => [name, value, ci_low, ci_high])];

function intervalMark({ name, value, ci_low: low, ci_high: high }, at) {
  const shapes = [svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: "100%" })];
  if (low !== null && high !== null) shapes.push(svg("line", { class: "span", x1: at(low), x2: at(high), y1: 13, y2: 13 }));
  if (value !== null) shapes.push(svg("circle", { class: "mean", cx: at(value), cy: 13, r: 4.5 }));
  return svg("svg", { class: `track ${name}`, "aria-hidden": "true" }, ...shapes);
}
