// The page of a study.

const { study } = data;
const selected = { arm: study.arms.findIndex((arm) => arm.verdict && arm.verdict.components.length), metric: "ssd_variance_fraction" };

function drawVerdicts() {
  byId("verdicts").append(...study.arms.filter((arm) => arm.verdict).map(({ name, verdict }) =>
    html("article", { class: "verdict" },
      html("h3", {}, modelDot(name), `${name}: ${verdict.headline}`),
      intervalPanel({ title: "Beyond the control", note: "nats per position", tone: toneOf(name), rows: study.attribution[name].beyond }),
      html("details", {}, html("summary", {}, "Explanation and sensitivity"), html("p", {}, verdict.text)))));
}

// Rows of intervals around zero; a row may have the control's interval beside its own.
function intervalPanel({ title, note, tone, rows }) {
  const values = rows.flatMap((row) => [row, row.control ?? {}]).flatMap(({ value, ci_low, ci_high }) => [value, ci_low, ci_high])
    .filter((x) => x !== null && x !== undefined);
  const at = scaleOf(values);
  const figure = html("figure", { class: "panel wide-names" },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, note)),
    ...rows.map((row) => html("div", { class: "interval" },
      html("span", { class: "row-name", title: row.positions ? `${row.positions.toLocaleString("en-US")} positions` : null }, row.name),
      intervalTrack([[row.tone ?? tone, row], ...(row.control ? [["tone-baseline", row.control]] : [])], at),
      html("span", { class: "value" }, row.text))));
  return withDownloads(figure, title, intervalRows(rows), () => rowsSvg(figure));
}

function intervalTrack(marks, at) {
  return svg("svg", { class: "track", "aria-hidden": "true" },
    svg("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: "100%" }),
    ...marks.map(([tone, { value, ci_low: low, ci_high: high }], i) => {
      const y = marks.length > 1 ? 8 + 10 * i : 13;
      return svg("g", { class: tone },
        low === null ? null : svg("line", { class: "span", x1: at(low), x2: at(high), y1: y, y2: y }),
        value === null ? null : svg("circle", { class: "mean", cx: at(value), cy: y, r: 4 }));
    }));
}

function drawAccuracy() {
  const { rows, chart, title, note, label } = study.accuracy;
  byId("accuracy").append(chart ? lineChart(chart)
    : intervalPanel({ title, note: `${label}, ${note}`, rows: rows.map((row) => ({ ...row, tone: toneOf(row.model) })) }));
  if (chart) legend(byId("accuracy-legend"), chart.series.map(({ model }) => model));
  byId("comparisons").append(textTable(study.comparisons));
  byId("diagnostics").append(textTable(study.diagnostics));
}

function drawTraining() {
  const models = [...new Set(study.training.flatMap(({ series }) => series.map(({ model }) => model)))];
  legend(byId("training-legend"), models);
  byId("training").append(...study.training.map(lineChart));
}

function drawArm(index) {
  selected.arm = index;
  const { name } = study.arms[index];
  const tone = toneOf(name);
  const { components, beyond, fit, classes, componentTests, singleFits, tests } = study.attribution[name];
  byId("shift").replaceChildren(
    intervalPanel({ title: "Components of the shift", note: "nats per position", tone, rows: components }),
    ...(beyond ? [intervalPanel({ title: "Beyond the control", note: "nats per position", tone, rows: beyond })] : []),
    html("div", { class: "scroller" }, textTable(fit)),
    html("div", { class: "scroller" }, textTable(singleFits)));
  byId("classes").replaceChildren(textTable(classes));
  byId("component-tests").replaceChildren(...(componentTests ? [textTable(componentTests)] : []));
  byId("tests").replaceChildren(tests ? textTable(tests) : html("p", { class: "small" }, `${name} is the control.`));
  byId("decoding").replaceChildren(...study.decoding[name].map(lineChart));
  legend(byId("decoding-legend"), ["baseline", name]);
  byId("shapes").replaceChildren(...study.filters.shapes[name].map((shape) => fractionsPanel(shape, tone)));
  byId("filters-legend").replaceChildren(key("tone-baseline", "as sampled"), key(tone, `that ${name} trained on`));
  drawGroupPanels();
}

const key = (tone, words) => html("span", { class: `model ${tone}` },
  svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("rect", { class: "mark", width: 12, height: 12, x: 1, y: 1 })), words);

function drawGroupPanels() {
  const { name, control } = study.arms[selected.arm];
  const { title, note, groups } = study.attribution[name].groups[selected.metric];
  const whole = groups.find((group) => group.title === "");
  byId("groups").replaceChildren(...groups.filter((group) => group !== whole).map((group) =>
    intervalPanel({ title: group.title, note: `${title.toLowerCase()}: ${note}`, tone: toneOf(name), rows: [...whole.rows, ...group.rows] })));
  const other = study.arms.find((arm) => arm.control).name;
  byId("groups-legend").replaceChildren(key(toneOf(name), name), ...(control ? [] : [key("tone-baseline", other)]));
}

// Fractions of traces in each row, before and after.
function fractionsPanel({ title, rows }, tone) {
  const percent = (x) => `${(100 * x).toFixed(1)}\u00a0%`;
  const most = Math.max(...rows.flatMap(({ sampled, selected }) => [sampled, selected]), 1e-9);
  const figure = html("figure", { class: "panel wide-names" },
    html("figcaption", {}, html("strong", {}, title), html("span", { class: "small" }, "fraction of the traces")),
    ...rows.map(({ name, sampled, selected }) => html("div", { class: "interval" },
      html("span", { class: "row-name" }, name),
      svg("svg", { class: "track", "aria-hidden": "true" },
        svg("rect", { class: "bar-before", y: 5, height: 7, width: `${100 * sampled / most}%` }),
        svg("rect", { class: `bar-after ${tone}`, y: 14, height: 7, width: `${100 * selected / most}%` })),
      html("span", { class: "value" }, sampled === selected ? percent(sampled) : `${percent(sampled)} → ${percent(selected)}`))));
  const values = rows.map(({ name, sampled, selected }) => [name, sampled, selected]);
  return withDownloads(figure, title, [["name", "sampled", "selected"], ...values], () => rowsSvg(figure));
}

byId("settings").textContent = JSON.stringify(data.settings, null, 2);
drawVerdicts();
byId("arms").append(textTable(study.armsTable));
drawAccuracy();
drawTraining();
byId("filters").append(textTable(study.filters.table));
byId("metric").append(...Object.entries(study.attribution[study.arms[0].name].groups)
  .map(([metric, { title }]) => html("option", { value: metric, selected: metric === selected.metric }, title)));
byId("metric").addEventListener("change", () => {
  selected.metric = byId("metric").value;
  drawGroupPanels();
});
segments(byId("arm"), "arm", study.arms.map(({ name }) => name), drawArm, Math.max(0, selected.arm));
drawArm(Math.max(0, selected.arm));
startBrowser();
