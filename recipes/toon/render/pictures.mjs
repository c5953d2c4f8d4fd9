// A picture: one or two characters in a scene, planned from seeded streams and drawn at any side length.
import { Resvg } from '@resvg/resvg-js';
import { Stream } from './random.mjs';
import { createCharacter, drawCharacter, expressionsOf, styles, trainingStyles } from './characters.mjs';
import { scenes, drawScene, drawPlain, drawIcon } from './scenes.mjs';
import { backgrounds } from './palette.mjs';
import { effects } from './media.mjs';
import { captionsFor } from './captions.mjs';

const layoutsPerScene = 48;
const expressionWeights = { smiling: 3, laughing: 2, sad: 2, angry: 2, surprised: 2, serious: 1.5, sleepy: 1.2, winking: 1.2 };
// Width of the square that holds the character, as a part of the picture.
const sizes = { 'close-up': [1.04, 1.14], large: [0.84, 0.96], medium: [0.64, 0.72], small: [0.46, 0.52] };
const sizeWeights = { 'close-up': 20, large: 45, medium: 25, small: 10 };
export const props = {
  balloon: 'balloon', book: 'closed-book', flower: 'tulip', cup: 'hot-beverage', ball: 'soccer-ball', umbrella: 'umbrella', guitar: 'guitar',
  apple: 'red-apple', 'ice cream': 'soft-ice-cream', gift: 'wrapped-gift', 'teddy bear': 'teddy-bear', star: 'star',
};

function expressionFor(style, stream) {
  const weights = {};
  for (const word of expressionsOf(style)) weights[word] = expressionWeights[word];
  return stream.weighted(weights);
}

function chooseScene(stream, characters) {
  if (!stream.chance(0.25)) return { scene: stream.pick(Object.keys(scenes)), background: null, layout: Math.floor(stream.next() * layoutsPerScene), sceneMirror: stream.chance(0.5) };
  // A character in the background's own colour would vanish in it.
  const taken = characters.flatMap((c) => [c.body_color, c.clothes_color, c.hair_color, c.headgear_color]);
  const dark = characters.some((c) => styles[c.style].bust?.outline || c.hair_color === 'black');
  const free = Object.keys(backgrounds).filter((name) => !taken.includes(name) && !(dark && name === 'black'));
  return { scene: 'plain', background: stream.pick(free), layout: 0, sceneMirror: false };
}

const facts = ({ options, lockedOption, medium, ...known }) => known;

function planSingle(character, stream, { effectChance }) {
  const scene = chooseScene(stream, [character]);
  const size = stream.weighted(sizeWeights);
  const sideways = size === 'close-up' ? 0 : size === 'large' ? 0.14 : 0.45;
  const place = stream.chance(sideways) ? stream.pick(['left', 'right']) : 'centre';
  const expression = expressionFor(character.style, stream);
  const effect = stream.chance(effectChance) ? stream.pick(Object.keys(effects)) : null;
  const prop = size !== 'close-up' && stream.chance(0.15) ? stream.pick(Object.keys(props)) : null;
  const scale = stream.between(...sizes[size]);
  const shift = { left: -1, centre: 0, right: 1 }[place] * (size === 'large' ? 0.16 : 0.24);
  return {
    ...facts(character), ...scene, medium: effect ?? character.medium, effect, count: 1, identity: [character.seed], expression, prop, size, place,
    mirror: stream.chance(0.5), propSide: place === 'centre' ? stream.pick([-1, 1]) : place === 'left' ? 1 : -1,
    figures: [{ character, expression, scale, x: 0.5 + shift + stream.between(-0.02, 0.02) }],
  };
}

function planPair(first, second, stream, { effectChance }) {
  const scene = chooseScene(stream, [first, second]);
  const effect = stream.chance(effectChance) ? stream.pick(Object.keys(effects)) : null;
  const figures = [first, second].map((character, side) => ({
    character, expression: expressionFor(character.style, stream), scale: stream.between(0.56, 0.64), x: (side ? 0.73 : 0.27) + stream.between(-0.015, 0.015), mirror: stream.chance(0.5),
  }));
  const medium = effect ?? (first.style === second.style ? first.medium : 'cartoon');
  const [left, right] = figures.map((figure) => ({ ...facts(figure.character), expression: figure.expression }));
  return {
    style: first.style === second.style ? first.style : 'mixed', ...scene, medium, effect, count: 2, identity: [first.seed, second.seed], left, right,
    expression: null, prop: null, size: 'medium', place: 'both', mirror: false, figures,
  };
}

const styleWeights = (set) => Object.fromEntries(Object.entries(set).map(([name, style]) => [name, style.weight]));

// styleSet: the styles to draw from; the picture's characters are its own and appear nowhere else.
export function planPicture(split, index, styleSet) {
  const stream = new Stream(`${split}/${index}/context`);
  const weights = styleWeights(styleSet);
  const style = stream.weighted(weights);
  const first = createCharacter(style, `${split}/${index}`);
  if (!stream.chance(0.15)) return planSingle(first, stream, { effectChance: 0.25 });
  const partner = stream.chance(0.55) ? style : stream.weighted(styleSet === trainingStyles ? { ...weights, bottts: 4 } : weights);
  return planPair(first, createCharacter(partner, `${split}/${index}/second`), stream, { effectChance: 0.2 });
}

// One more picture of a given character.
export function planOf(character, name, { effectChance = 0.1, ...wanted } = {}) {
  const plan = planSingle(character, new Stream(name), { effectChance });
  if (wanted.expression) plan.figures[0].expression = wanted.expression;
  if (wanted.size) plan.figures[0].scale = (sizes[wanted.size][0] + sizes[wanted.size][1]) / 2;
  return Object.assign(plan, wanted);
}

const cache = new Map();
function raster(svg, side) {
  return { side, pixels: new Resvg(svg, { fitTo: { mode: 'width', value: side } }).render().pixels };
}
function cached(key, make) {
  if (!cache.has(key)) cache.set(key, make());
  return cache.get(key);
}

function opaque({ side, pixels }, mirror) {
  const rgb = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const from = 4 * (y * side + (mirror ? side - 1 - x : x)), to = 3 * (y * side + x);
      rgb[to] = pixels[from]; rgb[to + 1] = pixels[from + 1]; rgb[to + 2] = pixels[from + 2];
    }
  }
  return rgb;
}

function paint(rgb, side, drawing, left, top, mirror) {
  const { side: width, pixels } = drawing;
  for (let y = Math.max(0, -top); y < width && top + y < side; y++) {
    for (let x = Math.max(0, -left); x < width && left + x < side; x++) {
      const from = 4 * (y * width + (mirror ? width - 1 - x : x));
      const alpha = pixels[from + 3];
      if (alpha === 0) continue;
      const to = 3 * ((top + y) * side + left + x), rest = 1 - alpha / 255;
      for (let c = 0; c < 3; c++) rgb[to + c] = pixels[from + c] * (premultiplied ? 1 : alpha / 255) + rgb[to + c] * rest;
    }
  }
}
const premultiplied = raster('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1" fill="#fff" fill-opacity=".5"/></svg>', 1).pixels[0] < 200;

export function renderPicture(plan, side) {
  const sceneKey = plan.scene === 'plain' ? `plain/${plan.background}` : `${plan.scene}/${plan.layout}`;
  const backdrop = cached(`${sceneKey}/${side}`, () => raster(plan.scene === 'plain' ? drawPlain(plan.background) : drawScene(plan.scene, new Stream(sceneKey)), side));
  const rgb = opaque(backdrop, plan.sceneMirror);
  for (const { character, expression, scale, x, mirror } of plan.figures) {
    const width = Math.round(scale * side);
    const round = character.noun === 'emoji face';
    const drawing = raster(drawCharacter(character, expression), width);
    // Close-ups are cut at the lower edge, balls float a little above it.
    const top = round ? side - width - Math.round(side * Math.max(0, 0.5 - scale / 2) * 0.5) : side - width + Math.round(Math.max(0, scale - 1) * side * 0.7);
    paint(rgb, side, drawing, Math.round(x * side - width / 2), top, plan.count === 2 ? mirror : plan.mirror);
  }
  if (plan.prop) {
    const figure = plan.figures[0];
    const width = Math.round(side * Math.max(0.22, 0.36 * figure.scale));
    const drawing = cached(`prop/${plan.prop}/${width}`, () => raster(drawIcon(props[plan.prop]), width));
    const left = Math.round((figure.x + plan.propSide * figure.scale * 0.37) * side - width / 2);
    const lift = plan.prop === 'balloon' || plan.prop === 'umbrella' ? 0.18 : 0.01;
    paint(rgb, side, drawing, Math.max(0, Math.min(side - width, left)), Math.round(side * (1 - lift) - width), plan.propSide < 0);
  }
  return plan.effect ? effects[plan.effect].apply(rgb, side) : rgb;
}

export function describe(plan, name) {
  const { figures, propSide, sceneMirror, layout, ...known } = plan;
  return { captions: captionsFor(plan, new Stream(`${name}/captions`)), ...known };
}
