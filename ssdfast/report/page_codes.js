// Columns of numbers from their codes; column_encoding.py describes the codes.

const UNDEFINED = 2 ** 24 - 1, SMALL = 2 ** 20, A_DECADE = 100;

// The digits of Python's base85, but for three that HTML has another use for.
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%:()*+-;.=,?@^_`{|}~";
const DIGIT_OF = new Uint8Array(128);
[...DIGITS].forEach((digit, value) => (DIGIT_OF[digit.charCodeAt(0)] = value));

// Four bytes from every five digits; the last ones may be fewer.
function bytesOf(text) {
  const bytes = new Uint8Array(4 * Math.ceil(text.length / 5));
  const view = new DataView(bytes.buffer);
  for (let i = 0, at = 0; i < text.length; i += 5, at += 4) {
    let word = 0;
    for (let k = i; k < i + 5; k++) word = word * 85 + (k < text.length ? DIGIT_OF[text.charCodeAt(k)] : 84);
    view.setUint32(at, word);
  }
  return bytes.subarray(0, Math.floor(text.length * 4 / 5));
}

async function inflate(packed) {
  const stream = new Blob([bytesOf(packed)]).stream().pipeThrough(new DecompressionStream("deflate"));
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
