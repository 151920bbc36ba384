// Line charts and tables of models, each with the colour and the mark of its arm.

const arms = data.study.arms.map(({ name }) => name);

// The place of the arm that a model belongs to, by its name: an arm, or an arm and a seed; -1 for the baseline.
function armOf(model) {
  const owners = arms.filter((name) => model === name || model.startsWith(`${name}-`));
  return arms.indexOf(owners.sort((x, y) => y.length - x.length)[0]);
}

const toneOf = (model) => (armOf(model) < 0 ? "tone-baseline" : `tone-${armOf(model) % 6}`);

// Later trainings of an arm have broken lines.
const isLater = (model, models) => models.findIndex((other) => armOf(other) === armOf(model)) < models.indexOf(model);

const SHAPES = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.6 -3.6h7.2v7.2h-7.2z", "M0 -5L5 0L0 5L-5 0z",
  "M0 -4.8L4.6 3.4H-4.6z", "M0 4.8L4.6 -3.4H-4.6z", "M-1.5 -4.6h3v3.1h3.1v3h-3.1v3.1h-3v-3.1h-3.1v-3h3.1z",
];
const shapeOf = (model) => SHAPES[armOf(model) < 0 ? 0 : armOf(model) % 6];

function modelMark(model, models) {
  const line = { x1: 1, x2: 27, y1: 7, y2: 7, class: isLater(model, models) ? "line later" : "line" };
  return html("span", { class: `model ${toneOf(model)}` },
    svg("svg", { width: 28, height: 14, "aria-hidden": "true" }, svg("line", line),
      svg("path", { class: "mark", d: shapeOf(model), transform: "translate(14 7)" })), model);
}

const legend = (container, models) => container.replaceChildren(...models.map((model) => modelMark(model, models)));

// Some five round values that cover the range.
function ticksOf(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const roundValue = (x) => minus(x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential() : x.toLocaleString("en-US", { maximumSignificantDigits: 4 }));

const powersOf = (low, high) =>
  Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, i) => Math.ceil(low) + i);

const WIDTH = 330, HEIGHT = 220, LEFT = 40, RIGHT = 10, TOP = 10, BOTTOM = 40;

// series: [{name, model, points: [[x, y, low, high], ...]}]; ticks: names of x = 0, 1, ...; log: of y.
function lineChart({ title, note, x, log, ticks, series }) {
  const points = series.flatMap((line) => line.points);
  const scaled = (y) => (log ? Math.log10(Math.max(y, 1e-12)) : y);
  const ys = points.flatMap(([, ...values]) => values.filter((y) => y !== null && y !== undefined).map(scaled));
  let [low, high] = log ? [Math.floor(Math.min(...ys)), Math.ceil(Math.max(...ys))] : [Math.min(0, ...ys), Math.max(...ys)];
  if (low === high) high = low + 1;
  const [first, last] = [Math.min(...points.map(([at]) => at)), Math.max(...points.map(([at]) => at))];
  const edge = ticks ? 0.5 : 0;
  const across = (at) => LEFT + (WIDTH - LEFT - RIGHT) * (at - first + edge) / (last - first + 2 * edge || 1);
  const up = (y) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scaled(y) - low) / (high - low);
  const labels = log ? powersOf(low, high).map((power) => 10 ** power) : ticksOf(low, high);
  const bottom = ticks ? ticks.map((_, i) => i) : ticksOf(first, last);
  const figure = html("figure", { class: "chart" },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, note)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}, ${note}` },
      ...labels.map((y) => svg("g", {},
        svg("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: up(y), y2: up(y) }),
        svg("text", { x: LEFT - 7, y: up(y) + 4, class: "tick end" }, roundValue(y)))),
      ...bottom.map((at) => svg("text", { x: across(at), y: HEIGHT - BOTTOM + 17, class: "tick" }, ticks ? ticks[at] : roundValue(at))),
      svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 5, class: "tick" }, x),
      ...series.map((line) => drawSeries(line, series.map(({ model }) => model), across, up))));
  const rows = series.flatMap(({ name, points }) => points.map(([at, ...values]) => [name, ticks ? ticks[at] : at, ...values]));
  return withDownloads(figure, title, [["series", x, "value", "ci_low", "ci_high"], ...rows], () => standaloneSvg(figure.querySelector("svg")));
}

function drawSeries({ name, model, points }, models, across, up) {
  const known = points.filter(([, , low]) => low !== null && low !== undefined);
  const at = (value) => value.toFixed(1);
  const ends = (side) => known.map((point) => `${at(across(point[0]))} ${at(up(point[side]))}`);
  const band = known.length > 8 ? svg("path", { class: "band", d: `M${ends(2).join("L")}L${ends(3).reverse().join("L")}z` }) : null;
  const whiskers = band ? [] : known.map(([x, , low, high]) =>
    svg("line", { class: "whisker", x1: across(x), x2: across(x), y1: up(low), y2: up(high) }));
  const every = Math.max(1, Math.floor(points.length / 7));
  return svg("g", { class: toneOf(model) }, band, ...whiskers,
    svg("path", { class: isLater(model, models) ? "line later" : "line", d: `M${points.map(([x, y]) => `${at(across(x))} ${at(up(y))}`).join("L")}` }),
    ...points.filter((_, i) => i % every === 0 || i === points.length - 1).map(([x, y, low, high]) =>
      svg("path", { class: "mark", d: shapeOf(model), transform: `translate(${at(across(x))} ${at(up(y))})` },
        svg("title", {}, `${name}: ${number(y)}${low === null || low === undefined ? "" : ` [${number(low)}, ${number(high)}]`} at ${number(x)}`))));
}

// {head, rows, models, words}: rows of text, the first cell names what the row is of; words: columns that are not numbers.
function textTable({ head, rows, models, words = [] }) {
  const kind = (column) => (words.includes(column) ? "words" : null);
  const button = html("button", { type: "button", class: "download", "aria-label": `${head[0]} as CSV`,
    onclick: () => save(csv([head, ...rows]), "text/csv", fileName(head.slice(0, 2).join(" "), "csv")) }, "CSV");
  return html("table", {},
    html("caption", {}, button),
    html("thead", {}, html("tr", {}, ...head.map((name, i) => html("th", { scope: "col", class: kind(i) }, name)))),
    html("tbody", {}, ...rows.map((cells, i) => html("tr", {},
      html("th", { scope: "row" }, models ? modelDot(models[i]) : null, cells[0]),
      ...cells.slice(1).map((cell, column) => html("td", { class: kind(column + 1) }, cell))))));
}

const modelDot = (model) => html("span", { class: `dot ${toneOf(model)}` },
  svg("svg", { width: 12, height: 12, "aria-hidden": "true" },
    svg("path", { class: "mark", d: shapeOf(model), transform: "translate(6 6)" })));
