// Columns of numbers from their codes; column_encoding.py describes the codes.

const UNDEFINED = 2 ** 24 - 1, SMALL = 2 ** 20, A_DECADE = 100;

async function inflate(packed) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const known = (code) => (code === UNDEFINED ? 0 : code);
const signed = (zigzag) => (zigzag & 1 ? -(zigzag + 1) / 2 : zigzag / 2);

// Adds the columns that `described` lists to codes and values. sizeOf: of a column, by its name and the values so far.
function decode(bytes, described, sizeOf, codes, values) {
  let start = 0;
  for (const [name, unit, least, less, differenceTo] of described) {
    const size = sizeOf(name, values);
    const own = new Int32Array(size);
    for (let plane = 0; plane < 4; plane++) {
      for (let i = 0; i < size; i++) own[i] |= bytes[start + plane * size + i] << (8 * plane);
    }
    start += 4 * size;
    if (differenceTo) {
      const other = codes[differenceTo];
      for (let i = 0; i < size; i++) own[i] = own[i] === 0 ? UNDEFINED : known(other[i]) + signed(own[i] - 1);
    }
    codes[name] = own;
    values[name] = Array.from(own, (code) => {
      if (code === UNDEFINED) return null;
      if (code < SMALL) return Number((code * unit - less).toPrecision(9));
      return Number((least * 10 ** ((SMALL - code) / A_DECADE)).toPrecision(2)) - less;
    });
  }
}
