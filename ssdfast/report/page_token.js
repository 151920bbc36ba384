// One selected token: both models' candidates side by side, and the numbers of the position.

const CLASS_OF = ["lock", "fork", "diffuse", "mixed", "unclassed"];

function describe(trace, position) {
  const { columns } = trace;
  const kind = CLASS_OF[columns.class[position]];
  const { a, b } = columns;
  return [
    plainToken(data.tokens.texts[columns.token[position]]),
    `position ${position}`,
    kind,
    `KL ${number(columns.kl[position])}`,
    `p ${probability(a.probability[position])} → ${probability(b.probability[position])}`,
  ].join("  ");
}

// The candidates of a position; the token that stands there is among them even when neither model ranks it high.
function candidatesAt(columns, position) {
  const { candidates, a, b } = columns;
  const start = columns.candidateStart[position];
  const kept = columns.kept[position];
  const here = columns.token[position];
  const found = Array.from({ length: columns.count[position] }, (_, i) => ({
    token: candidates.token[start + i],
    before: candidates.a[start + i],
    after: candidates.b[start + i],
    drawnBefore: drawn(candidates.a[start + i], candidates.inA[start + i], columns.massA[position]),
    drawnAfter: drawn(candidates.b[start + i], candidates.inB[start + i], columns.massB[position]),
    cut: kept !== null && i >= kept,
    here: candidates.token[start + i] === here,
  }));
  if (found.some((candidate) => candidate.here)) return found;
  const cut = found.some((candidate) => candidate.cut);
  return [...found, { token: here, before: a.probability[position], after: b.probability[position], cut, here: true }];
}

// The probability with which decoding draws a candidate: 0 where it is cut, null where nobody knows.
function drawn(p, possible, mass) {
  if (!data.browser.decoding || mass === null || p === null) return null;
  return possible ? Math.min(1, p ** (1 / data.browser.decoding.temperature) / mass) : 0;
}

function drawDetail(trace, position) {
  const { columns } = trace;
  const kind = CLASS_OF[columns.class[position]];
  const badges = [
    kind in CLASS_LINES ? className(kind) : null,
    columns.swap[position] ? html("span", { class: "badge" }, "swap") : null,
    columns.selfCorrection[position] ? html("span", { class: "badge" }, "self-correction") : null,
  ];
  byId("detail").replaceChildren(
    html("div", { class: "detail-head" },
      html("span", { class: "token-big" }, ...tokenNodes(data.tokens.texts[columns.token[position]])),
      html("span", { class: "small" }, `position ${position} of ${columns.token.length}`),
      ...badges),
    candidateTable(candidatesAt(columns, position)),
    columns.count[position] || !data.browser.left ? "" : html("p", { class: "small" }, "It moved too little to have its candidates and all numbers on this page; the probe’s table has them."),
    numberTable(columns, position));
}

function candidateTable(candidates) {
  const row = ({ token, before, after, drawnBefore, drawnAfter, cut, here }) => html("tr", { class: `${here ? "here" : ""} ${cut ? "cut" : ""}` },
    html("th", { scope: "row", title: `token id ${data.tokens.ids[token]}` },
      html("span", { class: "mark", "aria-hidden": "true" }, here ? "▸" : ""),
      html("span", { class: "candidate" }, ...tokenNodes(data.tokens.texts[token])),
      here ? html("span", { class: "badge" }, "in trace") : null,
      cut ? html("span", { class: "badge quiet", title: "the training samples' truncation leaves it out" }, "cut") : null),
    barCell(before, drawnBefore, "baseline"),
    barCell(after, drawnAfter, "trained"),
    html("td", { class: "change" }, change(before, after, probability)));
  return html("table", { class: "candidates" },
    html("caption", { class: "small" }, "Next-token candidates before and after training",
      data.browser.decoding ? `; after the arrow, what decoding draws (${data.browser.decoding.told})` : ""),
    html("thead", {}, html("tr", {}, ...["token", "baseline", "trained", "change"].map((name) =>
      html("th", { scope: "col" }, name)))),
    html("tbody", {}, ...candidates.map(row)));
}

function barCell(p, drawnP, model) {
  const width = `${100 * (p ?? 0)}%`;
  return html("td", { class: `bar-cell ${model}` },
    html("div", {}, html("span", { class: "figure" }, probability(p)),
      drawnP === null || drawnP === undefined ? null
        : html("span", { class: "drawn" }, drawnP === 0 ? "→ cut" : `→ ${drawnP.toFixed(3)}`)),
    svg("svg", { "aria-hidden": "true" },
      svg("rect", { class: "groove", width: "100%", height: "100%" }),
      svg("rect", { class: "level", width, height: "100%" })));
}

function numberTable(columns, position) {
  const { a, b } = columns;
  const pair = (name, key, unit, format = number) => {
    const [before, after] = [a[key][position], b[key][position]];
    return html("tr", {}, html("th", { scope: "row" }, name, html("small", {}, unit)),
      html("td", {}, format(before)), html("td", {}, format(after)), html("td", { class: "change" }, change(before, after, format)));
  };
  const single = (name, unit, value) =>
    html("div", {}, html("dt", {}, name), html("dd", {}, value, html("small", {}, unit)));
  return html("div", { class: "numbers" },
    html("dl", { class: "pair-numbers" },
      single("KL", "nats", number(columns.kl[position])),
      single("JS", "nats", number(columns.js[position])),
      single("alignment", "−1 … 1", number(columns.alignment[position]))),
    html("table", {},
      html("thead", {}, html("tr", {}, ...["", "baseline", "trained", "change"].map((name) => html("th", { scope: "col" }, name)))),
      html("tbody", {},
        pair("probability", "probability", "of this token", probability),
        pair("rank", "rank", "of this token"),
        pair("entropy", "entropy", "nats"),
        pair("nucleus size", "nucleus", "tokens"),
        pair("tail mass", "tail", "", probability))));
}
