// What happens to pictures on their way to a user: blur, and the blocks of a hard JPEG compression.

export function blur(rgb, side, radius) {
  const out = new Uint8Array(rgb.length);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0, count = 0;
        for (let v = Math.max(0, y - radius); v <= Math.min(side - 1, y + radius); v++) {
          for (let u = Math.max(0, x - radius); u <= Math.min(side - 1, x + radius); u++) { sum += rgb[3 * (v * side + u) + c]; count++; }
        }
        out[3 * (y * side + x) + c] = sum / count;
      }
    }
  }
  return out;
}

const cosine = Array.from({ length: 8 }, (_, k) => Array.from({ length: 8 }, (_, n) => Math.cos(((2 * n + 1) * k * Math.PI) / 16) * (k ? 0.5 : Math.SQRT1_2 / 2)));

// Rounds the frequencies of each 8 x 8 block to multiples that grow with the frequency.
function roundBlock(block, coarseness) {
  const frequencies = new Float64Array(64);
  for (let i = 0; i < 8; i++) {
    for (let j = 0; j < 8; j++) {
      let sum = 0;
      for (let y = 0; y < 8; y++) for (let x = 0; x < 8; x++) sum += block[8 * y + x] * cosine[i][y] * cosine[j][x];
      const step = coarseness * (1 + i + j);
      frequencies[8 * i + j] = Math.round(sum / step) * step;
    }
  }
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 8; x++) {
      let sum = 0;
      for (let i = 0; i < 8; i++) for (let j = 0; j < 8; j++) sum += frequencies[8 * i + j] * cosine[i][y] * cosine[j][x];
      block[8 * y + x] = sum;
    }
  }
}

export function compress(rgb, side, coarseness) {
  const planes = [0, 1, 2].map(() => new Float64Array(side * side));
  for (let i = 0; i < side * side; i++) {
    const [r, g, b] = [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]];
    const y = 0.299 * r + 0.587 * g + 0.114 * b;
    planes[0][i] = y; planes[1][i] = (b - y) * 0.564; planes[2][i] = (r - y) * 0.713;
  }
  const block = new Float64Array(64);
  planes.forEach((plane, p) => {
    for (let top = 0; top < side; top += 8) {
      for (let left = 0; left < side; left += 8) {
        for (let k = 0; k < 64; k++) block[k] = plane[(top + (k >> 3)) * side + left + (k & 7)];
        roundBlock(block, p ? coarseness * 2 : coarseness);
        for (let k = 0; k < 64; k++) plane[(top + (k >> 3)) * side + left + (k & 7)] = block[k];
      }
    }
  });
  const clamped = (value) => Math.max(0, Math.min(255, value));
  const out = new Uint8Array(rgb.length);
  for (let i = 0; i < side * side; i++) {
    const [y, cb, cr] = planes.map((plane) => plane[i]);
    out[3 * i] = clamped(y + cr / 0.713); out[3 * i + 1] = clamped(y - 0.344 * cb - 0.714 * cr); out[3 * i + 2] = clamped(y + cb / 0.564);
  }
  return out;
}
