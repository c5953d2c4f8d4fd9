// Media that any picture can be turned into, as operations on its pixels (RGB, row-major).

const luminance = (p, i) => 0.299 * p[i] + 0.587 * p[i + 1] + 0.114 * p[i + 2];
const clamp = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

function mapLuminance(pixels, tone) {
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < pixels.length; i += 3) {
    const [r, g, b] = tone(luminance(pixels, i));
    out[i] = clamp(r); out[i + 1] = clamp(g); out[i + 2] = clamp(b);
  }
  return out;
}

// Strength of the colour steps around each pixel, 0..255.
function edges(pixels, side) {
  const out = new Float32Array(side * side);
  const at = (x, y) => 3 * (Math.min(side - 1, Math.max(0, y)) * side + Math.min(side - 1, Math.max(0, x)));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const west = at(x - 1, y), east = at(x + 1, y), north = at(x, y - 1), south = at(x, y + 1);
      let strength = 0;
      for (let c = 0; c < 3; c++) strength = Math.max(strength, Math.abs(pixels[east + c] - pixels[west + c]) + Math.abs(pixels[south + c] - pixels[north + c]));
      out[y * side + x] = Math.min(255, strength);
    }
  }
  return out;
}

function blurred(values, side, radius) {
  const pass = (source, step, stride) => {
    const out = new Float32Array(source.length);
    for (let line = 0; line < side; line++) {
      for (let k = 0; k < side; k++) {
        let sum = 0, count = 0;
        for (let d = -radius; d <= radius; d++) if (k + d >= 0 && k + d < side) { sum += source[line * stride + (k + d) * step]; count++; }
        out[line * stride + k * step] = sum / count;
      }
    }
    return out;
  };
  return pass(pass(values, 1, side), side, 1);
}

function pencil(pixels, side) {
  const lines = edges(pixels, side);
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < lines.length; i++) {
    const shading = 175 + 75 * (luminance(pixels, 3 * i) / 255);
    const value = Math.max(40, shading - 1.1 * Math.max(0, lines[i] - 18));
    out[3 * i] = clamp(value + 3); out[3 * i + 1] = clamp(value + 1); out[3 * i + 2] = clamp(value - 6);
  }
  return out;
}

function blueprint(pixels, side) {
  const lines = edges(pixels, side);
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < lines.length; i++) {
    const line = Math.min(1, Math.max(0, lines[i] - 20) / 130);
    const tone = luminance(pixels, 3 * i) / 255;
    [24, 66, 150].forEach((base, c) => { out[3 * i + c] = clamp((base + 34 * tone) * (1 - line) + 245 * line); });
  }
  return out;
}

function neon(pixels, side) {
  const lines = edges(pixels, side);
  const out = new Uint8Array(pixels.length);
  for (let c = 0; c < 3; c++) {
    const glowing = new Float32Array(lines.length);
    for (let i = 0; i < lines.length; i++) {
      const high = Math.max(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2], 1);
      const low = Math.min(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
      // Grey places glow in a colour of their own: cyan when light, magenta when dark.
      const grey = high - low < 24;
      const tint = grey ? (high > 128 ? [60, 240, 255] : [255, 60, 220])[c] : 255 * Math.pow((pixels[3 * i + c] - low * 0.8) / (high - low * 0.8), 0.8);
      glowing[i] = tint * Math.min(1, Math.max(0, lines[i] - 24) / 110);
    }
    const halo = blurred(glowing, side, Math.max(1, Math.round(side / 64)));
    const dark = [16, 8, 34][c];
    for (let i = 0; i < lines.length; i++) out[3 * i + c] = clamp(dark + 0.072 * pixels[3 * i + c] + glowing[i] * 0.85 + halo[i] * 0.7);
  }
  return out;
}

function mosaic(pixels, side) {
  const block = side / 32;
  const out = new Uint8Array(pixels.length);
  for (let by = 0; by < side; by += block) {
    for (let bx = 0; bx < side; bx += block) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let y = 0; y < block; y++) for (let x = 0; x < block; x++) sum += pixels[3 * ((by + y) * side + bx + x) + c];
        const value = sum / (block * block);
        for (let y = 0; y < block; y++) for (let x = 0; x < block; x++) out[3 * ((by + y) * side + bx + x) + c] = value;
      }
    }
  }
  return out;
}

// Each pixel takes the mean of the calmest of the four squares that meet in it: flat dabs with soft borders.
function watercolor(pixels, side) {
  const radius = Math.round(side / 43);
  const tone = new Float32Array(side * side);
  for (let i = 0; i < tone.length; i++) tone[i] = luminance(pixels, 3 * i);
  const out = new Uint8Array(pixels.length);
  const sums = [0, 0, 0];
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      let calmest = Infinity;
      const best = [0, 0, 0];
      for (let quarter = 0; quarter < 4; quarter++) {
        const x0 = Math.max(0, quarter & 1 ? x : x - radius), x1 = Math.min(side - 1, quarter & 1 ? x + radius : x);
        const y0 = Math.max(0, quarter & 2 ? y : y - radius), y1 = Math.min(side - 1, quarter & 2 ? y + radius : y);
        let sum = 0, squares = 0, count = 0;
        sums.fill(0);
        for (let v = y0; v <= y1; v++) {
          for (let u = x0; u <= x1; u++) {
            const i = v * side + u;
            sum += tone[i]; squares += tone[i] * tone[i]; count++;
            sums[0] += pixels[3 * i]; sums[1] += pixels[3 * i + 1]; sums[2] += pixels[3 * i + 2];
          }
        }
        const variance = squares / count - (sum / count) ** 2;
        if (variance < calmest) { calmest = variance; for (let c = 0; c < 3; c++) best[c] = sums[c] / count; }
      }
      // Towards the rim the paper shows through.
      const rim = Math.min(x, y, side - 1 - x, side - 1 - y) / side;
      const paper = 0.22 + 0.78 * Math.max(0, 1 - rim / 0.07) ** 1.5;
      for (let c = 0; c < 3; c++) out[3 * (y * side + x) + c] = best[c] * (1 - paper) + [252, 248, 240][c] * paper;
    }
  }
  return out;
}

const woodcutLevel = 118;
// Two tones: dark areas and outlines are cut in black, the rest is cream paper.
function woodcut(pixels, side) {
  const lines = edges(pixels, side);
  const out = new Uint8Array(pixels.length);
  for (let i = 0; i < lines.length; i++) {
    const ink = 1 / (1 + Math.exp((luminance(pixels, 3 * i) - Math.max(0, lines[i] - 60) * 0.8 - woodcutLevel) / 6));
    [[244, 30], [233, 24], [208, 26]].forEach(([paper, black], c) => { out[3 * i + c] = paper * (1 - ink) + black * ink; });
  }
  return out;
}

const popTones = [[32, 22, 92], [222, 38, 120], [255, 140, 40], [255, 232, 92]];

// keepsColours: whether hair, clothes and skin colours can still be told.
export const effects = {
  sepia: { keepsColours: false, apply: (p) => mapLuminance(p, (l) => [l * 0.8 + 50, l * 0.72 + 26, l * 0.58 + 6]) },
  'black and white': { keepsColours: false, apply: (p) => mapLuminance(p, (l) => [l, l, l]) },
  'pencil drawing': { keepsColours: false, apply: pencil },
  blueprint: { keepsColours: false, apply: blueprint },
  neon: { keepsColours: false, apply: neon },
  'pop art': { keepsColours: false, apply: (p) => mapLuminance(p, (l) => popTones[Math.min(3, Math.floor(l / 62))]) },
  woodcut: { keepsColours: false, apply: woodcut },
  mosaic: { keepsColours: true, apply: mosaic },
  watercolor: { keepsColours: true, apply: watercolor },
};
