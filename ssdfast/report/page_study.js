// The page of a study.

const { study } = data;
const chosen = { arm: study.arms.findIndex((arm) => arm.verdict && arm.verdict.category !== "none"), measure: "ssd_share" };

function drawVerdicts() {
  byId("verdicts").append(...study.arms.filter((arm) => arm.verdict).map(({ name, verdict }) =>
    html("article", { class: "verdict" },
      html("h3", {}, modelDot(name), `${name}: ${verdict.headline}`),
      intervalPanel({ title: "Beyond the control", note: "nats a position", tone: toneOf(name), rows: study.attribution[name].beyond }),
      html("details", {}, html("summary", {}, "In words, and what would turn it"), html("p", {}, verdict.text)))));
}

// Rows of intervals around zero; a row may have the control's interval beside its own.
function intervalPanel({ title, note, tone, rows }) {
  const values = rows.flatMap((row) => [row, row.control ?? {}]).flatMap(({ mean, low, high }) => [mean, low, high])
    .filter((x) => x !== null && x !== undefined);
  const at = scaleOf(values);
  return html("figure", { class: "panel wide-names" },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, note)),
    ...rows.map((row) => html("div", { class: "interval" },
      html("span", { class: "row-name", title: row.positions ? `${row.positions.toLocaleString("en-US")} positions` : null }, row.name),
      intervalTrack([[row.tone ?? tone, row], ...(row.control ? [["tone-baseline", row.control]] : [])], at),
      html("span", { class: "value" }, row.text))));
}

function intervalTrack(marks, at) {
  return svg("svg", { class: "track", "aria-hidden": "true" },
    svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: "100%" }),
    ...marks.map(([tone, { mean, low, high }], i) => {
      const y = marks.length > 1 ? 8 + 10 * i : 13;
      return svg("g", { class: tone },
        low === null ? null : svg("line", { class: "span", x1: at(low), x2: at(high), y1: y, y2: y }),
        mean === null ? null : svg("circle", { class: "mean", cx: at(mean), cy: y, r: 4 }));
    }));
}

function drawAccuracy() {
  const { rows, chart, title, note, label } = study.accuracy;
  byId("accuracy").append(chart ? lineChart(chart)
    : intervalPanel({ title, note: `${label}, ${note}`, rows: rows.map((row) => ({ ...row, tone: toneOf(row.model) })) }));
  if (chart) legend(byId("accuracy-legend"), chart.series.map(({ model }) => model));
  byId("comparisons").append(textTable(study.comparisons));
  byId("health").append(textTable(study.health));
}

function drawTraining() {
  const models = [...new Set(study.training.flatMap(({ series }) => series.map(({ model }) => model)))];
  legend(byId("training-legend"), models);
  byId("training").append(...study.training.map(lineChart));
}

function drawArm(index) {
  chosen.arm = index;
  const { name } = study.arms[index];
  const tone = toneOf(name);
  const { parts, beyond, fit, alternatives, tests } = study.attribution[name];
  byId("moved").replaceChildren(
    intervalPanel({ title: "Parts of the movement", note: "nats a position", tone, rows: parts }),
    ...(beyond ? [intervalPanel({ title: "Beyond the control", note: "nats a position", tone, rows: beyond })] : []),
    html("div", { class: "scroller" }, textTable(fit)),
    html("div", { class: "scroller" }, textTable(alternatives)));
  byId("tests").replaceChildren(tests ? textTable(tests) : html("p", { class: "small" }, `${name} is the control.`));
  byId("panels").replaceChildren(...study.panels[name].map(lineChart));
  legend(byId("panels-legend"), ["baseline", name]);
  byId("shapes").replaceChildren(...study.filters.shapes[name].map((shape) => sharesPanel(shape, tone)));
  byId("filters-legend").replaceChildren(key("tone-baseline", "as sampled"), key(tone, `that ${name} trained on`));
  drawSets();
}

const key = (tone, words) => html("span", { class: `model ${tone}` },
  svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { class: "mark", width: 12, height: 12, x: 1, y: 1 })), words);

function drawSets() {
  const { name, control } = study.arms[chosen.arm];
  const { title, note, groups } = study.attribution[name].sets[chosen.measure];
  const whole = groups.find((group) => group.title === "");
  byId("sets").replaceChildren(...groups.filter((group) => group !== whole).map((group) =>
    intervalPanel({ title: group.title, note: `${title.toLowerCase()}: ${note}`, tone: toneOf(name), rows: [...whole.rows, ...group.rows] })));
  const other = study.arms.find((arm) => arm.control).name;
  byId("sets-legend").replaceChildren(key(toneOf(name), name), ...(control ? [] : [key("tone-baseline", other)]));
}

// Shares of traces in each row, before and after.
function sharesPanel({ title, rows }, tone) {
  const percent = (x) => `${(100 * x).toFixed(1)}\u00a0%`;
  const most = Math.max(...rows.flatMap(({ sampled, selected }) => [sampled, selected]), 1e-9);
  return html("figure", { class: "panel wide-names" },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, "share of the traces")),
    ...rows.map(({ name, sampled, selected }) => html("div", { class: "interval" },
      html("span", { class: "row-name" }, name),
      svg("svg", { class: "track", "aria-hidden": "true" },
        svg("rect", { class: "bar-before", y: 5, height: 7, width: `${100 * sampled / most}%` }),
        svg("rect", { class: `bar-after ${tone}`, y: 14, height: 7, width: `${100 * selected / most}%` })),
      html("span", { class: "value" }, sampled === selected ? percent(sampled) : `${percent(sampled)} → ${percent(selected)}`))));
}

byId("settings").textContent = JSON.stringify(data.settings, null, 2);
drawVerdicts();
byId("arms").append(textTable(study.armsTable));
drawAccuracy();
drawTraining();
byId("filters").append(textTable(study.filters.table));
byId("measure").append(...Object.entries(study.attribution[study.arms[0].name].sets)
  .map(([measure, { title }]) => html("option", { value: measure, selected: measure === chosen.measure }, title)));
byId("measure").addEventListener("change", () => {
  chosen.measure = byId("measure").value;
  drawSets();
});
segments(byId("arm"), "arm", study.arms.map(({ name }) => name), drawArm, Math.max(0, chosen.arm));
drawArm(Math.max(0, chosen.arm));
startBrowser();
