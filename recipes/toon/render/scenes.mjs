// Scenes: few large shapes and icons in a fixed layout that moves a little, so that a small model can learn them.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { backgrounds } from './palette.mjs';

const icons = JSON.parse(readFileSync(createRequire(import.meta.url).resolve('@iconify-json/fluent-emoji-flat/icons.json'), 'utf8')).icons;

export function iconBody(name) {
  if (!icons[name]) throw new Error(`no icon named ${name}`);
  return icons[name].body;
}

// All drawing is in a square of 128 units.
const rect = (x, y, w, h, fill, rx = 0) => `<rect x="${x}" y="${y}" width="${w}" height="${h}" rx="${rx}" fill="${fill}"/>`;
const circle = (x, y, r, fill) => `<circle cx="${x}" cy="${y}" r="${r}" fill="${fill}"/>`;
const path = (d, fill) => `<path d="${d}" fill="${fill}"/>`;
const sky = (from, to) => `<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop stop-color="${from}"/><stop offset="1" stop-color="${to}"/></linearGradient>${rect(0, 0, 128, 128, 'url(#sky)')}`;
const ground = (y, fill) => rect(0, y, 128, 128 - y, fill);
const hill = (x, y, r, fill) => `<ellipse cx="${x}" cy="${y + r * 0.6}" rx="${r}" ry="${r * 0.6}" fill="${fill}"/>`;
const peak = (x, y, w, fill, cap) => path(`M${x - w} 100L${x} ${y}L${x + w} 100Z`, fill) + (cap ? path(`M${x - w * 0.26} ${y + (100 - y) * 0.26}L${x} ${y}L${x + w * 0.26} ${y + (100 - y) * 0.26}L${x} ${y + (100 - y) * 0.2}Z`, cap) : '');

// name, centre x, lower edge y, size
function icon(s, name, x, y, size) {
  const jittered = size * s.between(0.93, 1.07);
  const left = x - jittered / 2 + s.between(-2, 2);
  const top = y - jittered + s.between(-1.5, 1.5);
  return `<g transform="translate(${left.toFixed(1)} ${top.toFixed(1)}) scale(${(jittered / 32).toFixed(3)})">${iconBody(name)}</g>`;
}
const house = (x, y, w, h, wall) => rect(x, y, w, h, wall) + [0.18, 0.58].flatMap((dx) => [0.12, 0.42, 0.72].map((dy) => rect(x + w * dx, y + h * dy, w * 0.24, h * 0.13, '#ffe9a6'))).join('');
const shelf = (y, tones) => rect(0, y + 20, 128, 5, '#6b4226') + tones.map((tone, i) => rect(2 + i * 9.7, y + (i % 3) * 3, 8, 20 - (i % 3) * 3, tone)).join('');

// Each scene: words that place someone in it, a bare name, and its drawing.
export const scenes = {
  beach: { at: 'at the beach', draw: (s) => sky('#7fd0f7', '#d6f1fb') + rect(0, 62, 128, 26, '#2f9fd6') + ground(86, '#f5d990') + icon(s, 'sun', 104, 30, 28) + icon(s, 'palm-tree', 20, 92, 62) + icon(s, 'beach-with-umbrella', 108, 112, 40) },
  forest: { at: 'in a forest', draw: (s) => sky('#bfe6b4', '#7dbb72') + ground(88, '#4e8a3a') + icon(s, 'evergreen-tree', 64, 84, 60) + icon(s, 'evergreen-tree', 16, 98, 74) + icon(s, 'evergreen-tree', 112, 98, 74) + icon(s, 'mushroom', 104, 122, 24) },
  city: { at: 'in the city', draw: (s) => sky('#a8d4f0', '#e4eef5') + house(2, 34, 30, 70, '#7d8fa8') + house(34, 52, 26, 60, '#a9727a') + house(66, 44, 26, 60, '#8a9f7d') + house(96, 24, 30, 80, '#6a7690') + ground(100, '#6f747c') + rect(0, 112, 128, 4, '#f2e6a0') },
  'night city': { at: 'in the city at night', draw: (s) => sky('#0f1640', '#33307a') + icon(s, 'full-moon', 104, 30, 24) + house(2, 40, 30, 70, '#1d2350') + house(34, 54, 26, 60, '#2a2560') + house(66, 46, 26, 60, '#1a2a55') + house(96, 36, 30, 80, '#241f4c') + ground(104, '#15172e') },
  'night sky': { at: 'under the night sky', draw: (s) => sky('#0b1238', '#3a4a8c') + icon(s, 'crescent-moon', 102, 38, 32) + icon(s, 'glowing-star', 18, 30, 22) + icon(s, 'glowing-star', 22, 72, 14) + hill(30, 98, 70, '#18224a') + hill(110, 102, 60, '#101a3c') },
  space: { at: 'in space', draw: (s) => sky('#05060f', '#1c1240') + icon(s, 'ringed-planet', 104, 42, 40) + icon(s, 'rocket', 20, 60, 38) + icon(s, 'globe-showing-americas', 14, 124, 36) + circle(50, 14, 2.5, '#fff') + circle(74, 30, 2, '#fff') + circle(116, 78, 2.5, '#fff') },
  snow: { at: 'in the snow', draw: (s) => sky('#b9d7ee', '#eaf4fb') + hill(24, 74, 60, '#dfeaf4') + ground(94, '#ffffff') + icon(s, 'snowman', 108, 112, 46) + icon(s, 'evergreen-tree', 16, 100, 52) + icon(s, 'snowflake', 26, 32, 20) + icon(s, 'snowflake', 100, 34, 20) },
  desert: { at: 'in the desert', draw: (s) => sky('#f6c76b', '#fbe7b5') + icon(s, 'sun', 24, 34, 28) + hill(98, 72, 60, '#e0a955') + ground(90, '#d9963f') + icon(s, 'cactus', 14, 102, 50) + icon(s, 'two-hump-camel', 108, 104, 42) },
  garden: { at: 'in a garden', draw: (s) => sky('#a9e0f7', '#e6f7ec') + hill(64, 66, 90, '#7cc96a') + ground(94, '#5bb04a') + icon(s, 'tulip', 12, 116, 42) + icon(s, 'sunflower', 112, 112, 46) + icon(s, 'blossom', 34, 124, 26) + icon(s, 'butterfly', 22, 44, 22) },
  mountains: { at: 'in the mountains', draw: (s) => sky('#8fc5ee', '#e3f2fb') + peak(26, 26, 46, '#7b8794', '#ffffff') + peak(100, 18, 52, '#66727f', '#ffffff') + peak(64, 52, 40, '#8b97a3') + ground(98, '#6fa05a') + icon(s, 'cloud', 62, 32, 28) },
  underwater: { at: 'under water', draw: (s) => sky('#39b6e0', '#0b4a8f') + icon(s, 'tropical-fish', 18, 48, 34) + icon(s, 'octopus', 110, 54, 36) + ground(112, '#d8c48c') + icon(s, 'coral', 14, 122, 44) + icon(s, 'coral', 114, 124, 38) + icon(s, 'bubbles', 96, 96, 22) },
  party: { at: 'at a party', draw: (s) => sky('#f9b5dc', '#b58ff0') + icon(s, 'balloon', 16, 56, 44) + icon(s, 'balloon', 112, 48, 40) + icon(s, 'party-popper', 16, 118, 36) + icon(s, 'birthday-cake', 110, 122, 42) },
  farm: { at: 'on a farm', draw: (s) => sky('#9ed8f6', '#e8f6e4') + hill(30, 70, 70, '#a5cf5e') + rect(88, 46, 40, 44, '#c0392b') + path('M82 48L108 24L134 48Z', '#8e2c20') + rect(100, 64, 16, 26, '#f5e6d0') + ground(88, '#86bb45') + icon(s, 'cow', 18, 110, 44) + icon(s, 'rooster', 112, 120, 30) },
  rain: { at: 'in the rain', draw: (s) => sky('#5f6f82', '#a5b1bd') + icon(s, 'cloud-with-rain', 22, 44, 46) + icon(s, 'cloud-with-rain', 106, 44, 46) + ground(100, '#4d5a68') + icon(s, 'droplet', 12, 88, 20) + icon(s, 'droplet', 116, 86, 20) + `<ellipse cx="20" cy="112" rx="20" ry="5" fill="#8fb3d1"/><ellipse cx="106" cy="118" rx="22" ry="5" fill="#8fb3d1"/>` },
  library: { at: 'in a library', draw: (s) => { const tones = s.shuffled(['#b03a2e', '#2e6da4', '#d9a441', '#3d8b5f', '#7d4f9e', '#c9693f', '#4a5568']); const row = (k) => Array.from({ length: 13 }, (_, i) => tones[(i + k) % 7]); return rect(0, 0, 128, 128, '#8a5a34') + shelf(4, row(0)) + shelf(38, row(3)) + shelf(72, row(5)) + ground(106, '#a97c50'); } },
  kitchen: { at: 'in a kitchen', draw: (s) => rect(0, 0, 128, 128, '#fdf0d5') + rect(0, 0, 40, 34, '#4d9aa8', 3) + rect(88, 0, 40, 34, '#4d9aa8', 3) + rect(0, 84, 128, 44, '#4d9aa8') + rect(0, 78, 128, 8, '#d9c3a5') + icon(s, 'pot-of-food', 18, 80, 38) + icon(s, 'teapot', 110, 80, 36) },
  'football field': { at: 'on a football field', draw: (s) => sky('#8fd0f5', '#dff2fb') + rect(0, 44, 128, 16, '#c0c6d0') + ground(60, '#3fa34d') + rect(0, 72, 128, 12, '#4cb65c') + rect(0, 98, 128, 14, '#4cb65c') + icon(s, 'goal-net', 20, 80, 46) + icon(s, 'soccer-ball', 110, 116, 30) },
  castle: { at: 'in front of a castle', draw: (s) => sky('#9fc9f2', '#f6e6f2') + icon(s, 'castle', 64, 78, 76) + hill(20, 86, 60, '#7cc06a') + hill(112, 88, 56, '#6ab35a') + ground(104, '#5aa44c') + icon(s, 'shield', 14, 120, 26) },
  sunset: { at: 'at sunset', draw: (s) => sky('#5b2a86', '#ff9a56') + circle(64 + s.between(-6, 6), 82, 34, '#ffe08a') + rect(0, 82, 128, 46, '#c1446e') + rect(0, 92, 128, 4, '#f7a35c') + rect(0, 104, 128, 4, '#e2715f') + path('M0 84L26 66L56 84Z', '#4a1f5c') + path('M84 84L112 62L140 84Z', '#4a1f5c') },
  street: { at: 'on a street', draw: (s) => sky('#b4def5', '#eef7fb') + icon(s, 'house-with-garden', 18, 86, 52) + icon(s, 'house', 110, 86, 50) + ground(84, '#b9b5ae') + ground(98, '#5f646d') + rect(8, 110, 28, 4, '#ffffff') + rect(94, 110, 28, 4, '#ffffff') + icon(s, 'automobile', 108, 116, 36) },
  bedroom: { at: 'in a bedroom', draw: (s) => rect(0, 0, 128, 128, '#c9b8e8') + rect(82, 12, 36, 36, '#ffffff', 3) + rect(86, 16, 28, 28, '#26336b') + icon(s, 'crescent-moon', 100, 38, 16) + ground(96, '#9c7a5b') + icon(s, 'bed', 24, 108, 58) + icon(s, 'teddy-bear', 112, 118, 36) },
  volcano: { at: 'near a volcano', draw: (s) => sky('#3d1b2b', '#d9542f') + path('M-6 104L44 36L84 36L134 104Z', '#4a3038') + path('M44 36L52 62L62 46L70 68L84 36Z', '#ff7a1c') + icon(s, 'fire', 64, 40, 34) + ground(100, '#2b1b22') + rect(0, 106, 128, 6, '#ff7a1c') },
  jungle: { at: 'in the jungle', draw: (s) => sky('#5fb48a', '#1f6b4a') + hill(64, 60, 80, '#2f8557') + ground(96, '#1f5c38') + icon(s, 'palm-tree', 16, 104, 66) + icon(s, 'palm-tree', 114, 104, 58) + icon(s, 'parrot', 108, 52, 32) + icon(s, 'herb', 16, 124, 34) },
  harbour: { at: 'at a harbour', draw: (s) => sky('#a5d8f3', '#f0f7f4') + rect(0, 66, 128, 44, '#2a78b8') + icon(s, 'sailboat', 20, 84, 46) + icon(s, 'ship', 106, 88, 46) + rect(0, 106, 128, 22, '#9b6b43') + rect(0, 114, 128, 3, '#7c5433') + icon(s, 'anchor', 14, 124, 24) },
  circus: { at: 'at a circus', draw: (s) => sky('#ffd76a', '#fff3cf') + icon(s, 'circus-tent', 64, 86, 84) + ground(84, '#e8b05c') + icon(s, 'ferris-wheel', 16, 92, 46) + icon(s, 'elephant', 110, 116, 44) },
  'autumn park': { at: 'in an autumn park', draw: (s) => sky('#f3dcae', '#fbf1dc') + rect(16, 60, 8, 40, '#7a4a28') + circle(20, 46, 26, '#e07b28') + rect(106, 60, 8, 40, '#7a4a28') + circle(110, 44, 26, '#c8452a') + ground(94, '#c79a4b') + icon(s, 'maple-leaf', 18, 122, 28) + icon(s, 'fallen-leaf', 108, 122, 28) },
  classroom: { at: 'in a classroom', draw: (s) => rect(0, 0, 128, 128, '#f3e3c3') + rect(10, 12, 108, 54, '#8a5a34', 3) + rect(14, 16, 100, 46, '#2f6b4f') + ground(98, '#b98550') + icon(s, 'globe-showing-europe-africa', 112, 106, 34) + icon(s, 'books', 16, 108, 38) },
  camping: { at: 'at a campsite', draw: (s) => sky('#2a4d6e', '#f2a65a') + icon(s, 'evergreen-tree', 108, 88, 60) + ground(86, '#466b3a') + icon(s, 'tent', 22, 104, 56) + icon(s, 'fire', 110, 120, 34) },
  pumpkins: { at: 'in a pumpkin patch', draw: (s) => sky('#43285f', '#e9803a') + icon(s, 'full-moon', 102, 38, 30) + ground(92, '#4d3a20') + icon(s, 'jack-o-lantern', 18, 116, 46) + icon(s, 'jack-o-lantern', 110, 118, 42) + icon(s, 'ghost', 20, 52, 32) },
  rainbow: { at: 'under a rainbow', draw: (s) => sky('#8ed1f9', '#e9f8fd') + ['#e4483c', '#f7953a', '#fbdd4a', '#4fb356', '#3b82d8', '#8a4cc0'].map((tone, i) => `<circle cx="64" cy="92" r="${70 - i * 5}" fill="none" stroke="${tone}" stroke-width="5.5"/>`).join('') + ground(94, '#6fc15c') + icon(s, 'cloud', 12, 100, 34) + icon(s, 'cloud', 116, 100, 34) },
  'candy land': { at: 'in candy land', draw: (s) => sky('#ffd3ea', '#fff3f9') + hill(26, 78, 56, '#f79bc6') + ground(94, '#c7f0d8') + icon(s, 'lollipop', 16, 100, 52) + icon(s, 'cupcake', 112, 112, 44) + icon(s, 'doughnut', 104, 44, 30) },
  'moon base': { at: 'on the moon', draw: (s) => rect(0, 0, 128, 128, '#0a0c1c') + icon(s, 'globe-showing-americas', 102, 48, 40) + circle(24, 24, 2.5, '#fff') + circle(52, 12, 2, '#fff') + ground(90, '#a9abb3') + `<ellipse cx="20" cy="104" rx="16" ry="4" fill="#85878f"/><ellipse cx="108" cy="112" rx="16" ry="4" fill="#85878f"/>` + icon(s, 'flying-saucer', 20, 62, 38) },
};

const wrap = (body) => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">${body}</svg>`;
export const drawScene = (name, stream) => wrap(scenes[name].draw(stream));
export const drawPlain = (colour) => wrap(rect(0, 0, 128, 128, `#${backgrounds[colour]}`));
export const drawIcon = (name) => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${iconBody(name)}</svg>`;
