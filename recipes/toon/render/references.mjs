// Real pictures of the shots of the suite `toon`: what prompts ask for, drawn without a model, so that
// agreement has an upper end. Each character below draws every shot once; it is in no training split.
//   node references.mjs [--out folder]      writes <out>/<class noun>/<shot>.png
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createCharacter } from './characters.mjs';
import { planOf, renderPicture } from './pictures.mjs';
import { encodePng } from './png.mjs';

const side = 128;
// One character for each class noun, in styles that have every expression. Anyone may be called the last two.
const wanted = { woman: 'micah', man: 'open-peeps', person: 'adventurer', character: 'avataaars' };
const anyone = new Set(['person', 'character']);

const inScene = (scene) => ({ scene, background: null, effect: null });
const onPlain = (expression) => ({ scene: 'plain', background: 'white', effect: null, expression });
const inMedium = (effect) => ({ effect, medium: effect });
const shots = {
  beach: inScene('beach'), forest: inScene('forest'), night_city: inScene('night city'), space: inScene('space'),
  snow: inScene('snow'), library: inScene('library'), underwater: inScene('underwater'), desert: inScene('desert'),
  smiling: onPlain('smiling'), sad: onPlain('sad'), angry: onPlain('angry'), surprised: onPlain('surprised'),
  pencil_drawing: inMedium('pencil drawing'), watercolor: inMedium('watercolor'), pixel_art: { effect: null }, woodcut: inMedium('woodcut'),
};

function characterOf(noun, style) {
  for (let number = 0; number < 100; number++) {
    const character = createCharacter(style, `references/${noun}/${number}`);
    if (anyone.has(noun) || character.noun === noun) return character;
  }
  throw new Error(`style ${style} draws no ${noun}`);
}

const { values } = parseArgs({ options: { out: { type: 'string', default: 'references' } } });
for (const [noun, style] of Object.entries(wanted)) {
  const character = characterOf(noun, style);
  const pixels = characterOf(noun, 'pixel-art'); // artwork of its own; the other media are made of any picture
  mkdirSync(join(values.out, noun), { recursive: true });
  for (const [shot, asked] of Object.entries(shots)) {
    const plan = planOf(shot === 'pixel_art' ? pixels : character, `references/${noun}/${shot}`, { effectChance: 0, prop: null, size: 'medium', place: 'centre', ...asked });
    plan.figures[0].x = 0.5;
    writeFileSync(join(values.out, noun, `${shot}.png`), encodePng(renderPicture(plan, side), side));
  }
}
