// Elements, numbers and text. Text reaches the page through textContent alone.

const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

function make(create, tag, attributes, children) {
  const node = create(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const html = (tag, attributes = {}, ...children) =>
  make((name) => document.createElement(name), tag, attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  make((name) => document.createElementNS("http://www.w3.org/2000/svg", name), tag, attributes, children);

// Three significant digits; a dash where a value is not defined.
function number(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  if (x === 0) return "0";
  if (Number.isInteger(x)) return minus(x.toLocaleString("en-US"));
  if (size < 0.001) return minus(x.toExponential(1));
  return minus(size >= 1000 ? Math.round(x).toLocaleString("en-US") : x.toPrecision(3));
}

// Four decimals, as probabilities are stored; smaller ones by exponent.
function probability(p) {
  if (p === null || p === undefined) return "–";
  return p === 0 ? "0" : p < 0.001 ? minus(p.toExponential(1)) : p.toFixed(4);
}

function change(before, after, format) {
  if (before === null || after === null) return "–";
  const difference = after - before;
  if (difference === 0) return "0";
  return (difference > 0 ? "+" : "−") + format(Math.abs(difference));
}

const minus = (text) => text.replaceAll("-", "−");

const GLYPHS = { " ": "·", "\n": "⏎", "\t": "⇥" };

// A token's text as nodes, its spaces, newlines and tabs as glyphs that differ from letters.
function tokenNodes(text) {
  if (text === "") return [html("span", { class: "glyph" }, "∅")];
  return text.split(/([ \n\t]+)/).filter(Boolean).map((piece) =>
    piece[0] in GLYPHS
      ? html("span", { class: "glyph" }, [...piece].map((space) => GLYPHS[space]).join(""))
      : document.createTextNode(piece));
}

const plainToken = (text) => (text === "" ? "∅" : text.replace(/[ \n\t]/g, (space) => GLYPHS[space]));

// A row of radio buttons that looks like one control; calls `choose` with the chosen option's index.
function segments(container, name, options, choose, chosen = 0) {
  container.replaceChildren(...options.map((option, index) => {
    const input = html("input", { type: "radio", name, checked: index === chosen, onchange: () => choose(index) });
    return html("label", {}, input, html("span", {}, option));
  }));
}
