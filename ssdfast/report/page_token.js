// One selected token: both models' candidates side by side, and the numbers of the position.

const CLASS_OF = ["lock", "fork", "diffuse", "mixed", "unclassed"];

function describe(trace, position) {
  const { columns } = trace;
  const kind = CLASS_OF[columns.class[position]];
  const { base, trained } = columns;
  return [
    plainToken(data.tokens.texts[columns.token[position]]),
    `position ${position}`,
    kind,
    `KL ${number(columns.kl[position])}`,
    `p ${probability(base.probability[position])} → ${probability(trained.probability[position])}`,
  ].join("  ");
}

// The candidates of a position; the token that stands there is among them even when neither model ranks it high.
function candidatesAt(columns, position) {
  const { candidates, base, trained } = columns;
  const start = columns.candidateStart[position];
  const kept = columns.kept[position];
  const here = columns.token[position];
  const list = Array.from({ length: columns.count[position] }, (_, i) => ({
    token: candidates.token[start + i],
    before: candidates.base[start + i],
    after: candidates.trained[start + i],
    decodedBefore: decoded(candidates.base[start + i], candidates.inBase[start + i], columns.baseMass[position]),
    decodedAfter: decoded(candidates.trained[start + i], candidates.inTrained[start + i], columns.trainedMass[position]),
    cut: kept !== null && i >= kept,
    here: candidates.token[start + i] === here,
  }));
  if (list.some((candidate) => candidate.here)) return list;
  const cut = list.some((candidate) => candidate.cut);
  return [...list, { token: here, before: base.probability[position], after: trained.probability[position], cut, here: true }];
}

// The probability of a candidate under decoding: 0 where it is cut, null where that is unknown.
function decoded(p, inside, mass) {
  if (!data.browser.decoding || mass === null || p === null) return null;
  return inside ? Math.min(1, p ** (1 / data.browser.decoding.temperature) / mass) : 0;
}

function drawDetail(trace, position) {
  const { columns } = trace;
  const kind = CLASS_OF[columns.class[position]];
  const badges = [
    kind in CLASS_LINES ? className(kind) : null,
    columns.top1Changed[position] ? html("span", { class: "badge" }, "top-1 changed") : null,
    columns.selfCorrection[position] ? html("span", { class: "badge" }, "self-correction") : null,
  ];
  byId("detail").replaceChildren(
    html("div", { class: "detail-head" },
      html("span", { class: "token-big" }, ...tokenNodes(data.tokens.texts[columns.token[position]])),
      html("span", { class: "small" }, `position ${position} of ${columns.token.length}`),
      ...badges),
    candidateTable(candidatesAt(columns, position)),
    columns.count[position] || !data.browser.leftOut ? "" : html("p", { class: "small" }, "Its shift is too small for this page to hold its candidates and all numbers; the probe’s table has them."),
    numberTable(columns, position));
}

function candidateTable(candidates) {
  const row = ({ token, before, after, decodedBefore, decodedAfter, cut, here }) => html("tr", { class: `${here ? "here" : ""} ${cut ? "cut" : ""}` },
    html("th", { scope: "row", title: `token id ${data.tokens.ids[token]}` },
      html("span", { class: "mark", "aria-hidden": "true" }, here ? "▸" : ""),
      html("span", { class: "candidate" }, ...tokenNodes(data.tokens.texts[token])),
      here ? html("span", { class: "badge" }, "in trace") : null,
      cut ? html("span", { class: "badge quiet", title: "outside the support of the training samples" }, "cut") : null),
    barCell(before, decodedBefore, "baseline"),
    barCell(after, decodedAfter, "trained"),
    html("td", { class: "change" }, change(before, after, probability)));
  return html("table", { class: "candidates" },
    html("caption", { class: "small" }, "Next-token candidates before and after training",
      data.browser.decoding ? `; after the arrow, the probability under decoding (${data.browser.decoding.text})` : ""),
    html("thead", {}, html("tr", {}, ...["token", "baseline", "trained", "change"].map((name) =>
      html("th", { scope: "col" }, name)))),
    html("tbody", {}, ...candidates.map(row)));
}

function barCell(p, decodedP, model) {
  const width = `${100 * (p ?? 0)}%`;
  return html("td", { class: `bar-cell ${model}` },
    html("div", {}, html("span", { class: "figure" }, probability(p)),
      decodedP === null || decodedP === undefined ? null
        : html("span", { class: "decoded" }, decodedP === 0 ? "→ cut" : `→ ${decodedP.toFixed(3)}`)),
    svg("svg", { "aria-hidden": "true" },
      svg("rect", { class: "groove", width: "100%", height: "100%" }),
      svg("rect", { class: "level", width, height: "100%" })));
}

function numberTable(columns, position) {
  const { base, trained } = columns;
  const pair = (name, key, unit, format = number) => {
    const [before, after] = [base[key][position], trained[key][position]];
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
