// CSV and SVG of each figure and table, made in the browser on demand.

const fileName = (title, suffix) => `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")}.${suffix}`;

function save(text, type, name) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// Rows of values as CSV (RFC 4180); a text that a spreadsheet would compute begins with an apostrophe.
function csv(rows) {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

const PAINT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-family", "text-anchor"];

// A drawing with the colours that it has on the page, which opens by itself.
function standaloneSvg(drawing) {
  const { width, height } = drawing.getBoundingClientRect();
  const copy = drawing.cloneNode(true);
  const [originals, copies] = [drawing, copy].map((node) => [node, ...node.querySelectorAll("*")]);
  originals.forEach((node, i) => {
    const style = getComputedStyle(node);
    for (const name of PAINT) copies[i].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.style.background = getComputedStyle(document.body).backgroundColor;
  return new XMLSerializer().serializeToString(copy);
}

const ROW_HEIGHT = 26, NAME_WIDTH = 190, TRACK_WIDTH = 260;

// The rows of a figure of intervals in one drawing: name, interval, value.
function rowsSvg(figure) {
  const rows = [...figure.querySelectorAll(".interval")];
  const ink = getComputedStyle(document.body);
  const label = (text, x, y) => svg("text", { x, y, "font-size": 12, "font-family": "sans-serif", fill: ink.color }, text);
  const width = NAME_WIDTH + TRACK_WIDTH + 230, height = ROW_HEIGHT * (rows.length + 1);
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` },
    svg("rect", { width, height, fill: ink.backgroundColor }),
    label(figure.querySelector("figcaption strong").textContent, 8, 18));
  rows.forEach((row, i) => {
    const [name, track, value] = row.children;
    const y = ROW_HEIGHT * (i + 1);
    const holder = svg("svg", { x: NAME_WIDTH, y, width: TRACK_WIDTH, height: ROW_HEIGHT });
    const parts = [...track.querySelectorAll("line, circle, rect")].map((part) => {
      const copy = part.cloneNode(true);
      const style = getComputedStyle(part);
      for (const paint of PAINT) copy.style.setProperty(paint, style.getPropertyValue(paint));
      return copy;
    });
    holder.append(...parts);
    drawing.append(label(name.textContent, 8, y + 17), holder, label(value.textContent, NAME_WIDTH + TRACK_WIDTH + 12, y + 17));
  });
  drawing.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(drawing);
}

// Buttons in the caption of a figure. rows: of its CSV, the head first; drawing: () => text of its SVG.
function withDownloads(figure, title, rows, drawing) {
  const button = (suffix, onclick) =>
    html("button", { type: "button", class: "download", "aria-label": `${title} as ${suffix}`, onclick }, suffix);
  figure.querySelector("figcaption").append(html("span", { class: "downloads" },
    button("CSV", () => save(csv(rows), "text/csv", fileName(title, "csv"))),
    drawing ? button("SVG", () => save(drawing(), "image/svg+xml", fileName(title, "svg"))) : null));
  return figure;
}
