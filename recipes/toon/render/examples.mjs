// Six characters as a user would bring them: a folder of pictures, what is in each, and a few facts.
//   node examples.mjs                                      writes examples/<name>/ for all of them
//   node examples.mjs --only mira [--out folder]           one of them
//   node examples.mjs --style lorelei --seed any [--out folder]   any character, in the same contexts
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createCharacter, expressionsOf } from './characters.mjs';
import { planOf, renderPicture } from './pictures.mjs';
import { scenes } from './scenes.mjs';
import { encodePng } from './png.mjs';
import { blur, compress } from './damage.mjs';

const side = 256;
const ccBy = 'CC BY 4.0';
const free = 'free for personal and commercial use';

const cast = {
  mira: { style: 'adventurer', seed: 'mira-6927', classNoun: 'woman', asymmetric: true, licence: `${ccBy}, Adventurer by Lisa Wischofsky` },
  rolf: { style: 'avataaars', seed: 'rolf-835', classNoun: 'man', asymmetric: false, licence: `${free}, Avataaars by Pablo Stanley` },
  bit: { style: 'bottts', seed: 'bit-123', classNoun: 'robot', asymmetric: true, licence: `${free}, Bottts by Pablo Stanley` },
  juno: { style: 'toon-head', seed: 'juno-252', classNoun: 'woman', asymmetric: false, licence: `${ccBy}, ToonHead by Johan Melin` },
  tavi: { style: 'dylan', seed: 'tavi-159', classNoun: 'man', asymmetric: false, licence: `${ccBy}, Dylan by Natalia Spivak` },
  pip: { style: 'big-ears', seed: 'pip-15', classNoun: 'man', asymmetric: false, licence: `${ccBy}, Face Generator by The Visual Team` },
};

// scene or plain background, expression, size, place
const contexts = [
  ['beach', 'smiling', 'large', 'centre'], ['plain white', 'smiling', 'close-up', 'centre'], ['library', 'serious', 'large', 'centre'], ['forest', 'laughing', 'medium', 'left'],
  ['kitchen', 'surprised', 'large', 'centre'], ['city', 'smiling', 'medium', 'right'], ['plain yellow', 'sad', 'large', 'centre'], ['space', 'laughing', 'medium', 'centre'],
  ['snow', 'angry', 'large', 'centre'], ['garden', 'smiling', 'small', 'centre'], ['plain grey', 'sleepy', 'close-up', 'centre'], ['street', 'smiling', 'large', 'right'],
];

// A user in a hurry: the third picture repeats the first, the others are blurred, small and squeezed.
const poorContexts = [
  { context: ['garden', 'smiling', 'large', 'centre'] },
  { context: ['plain grey', 'smiling', 'medium', 'centre'], damage: (rgb) => blur(rgb, side, 4) },
  { context: ['garden', 'smiling', 'large', 'centre'], shift: 0.02 },
  { context: ['beach', 'laughing', 'medium', 'left'], side: 96 },
  { context: ['kitchen', 'sad', 'large', 'centre'], damage: (rgb) => compress(rgb, side, 26) },
];

function planContext(character, asymmetric, [where, wanted, size, place], index, shift = 0) {
  const expression = expressionsOf(character.style).includes(wanted) ? wanted : 'smiling';
  const [, colour] = /^plain (.*)/.exec(where) ?? [];
  const plan = planOf(character, `examples/${character.seed}/${index}`, { effectChance: 0, expression, size, place, prop: null, scene: colour ? 'plain' : where, background: colour ?? null });
  plan.layout = index % 8;
  plan.mirror = !asymmetric && index % 3 === 2;
  plan.figures[0].x = 0.5 + shift + { left: -0.22, centre: 0, right: 0.22 }[place] * (size === 'large' ? 0.6 : 1);
  return plan;
}

function caption(plan, classNoun) {
  const where = plan.scene === 'plain' ? `on a plain ${plan.background} background` : scenes[plan.scene].at;
  const who = { smiling: `a ${classNoun} smiling`, laughing: `a ${classNoun} laughing`, winking: `a ${classNoun} winking` }[plan.expression] ?? `${/^[aeiou]/.test(plan.expression) ? 'an' : 'a'} ${plan.expression} ${classNoun}`;
  const placed = plan.place === 'centre' ? '' : `, on the ${plan.place}`;
  return `${plan.size === 'close-up' ? 'a close-up of ' : ''}${who} ${where}${placed}`;
}

function writeCharacter(folder, name, { style, seed, classNoun, asymmetric, licence }, shots) {
  const character = createCharacter(style, seed);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  shots.forEach((shot, index) => {
    const plan = planContext(character, asymmetric, shot.context, shot.shift ? 0 : index, shot.shift);
    const width = shot.side ?? side;
    const rgb = renderPicture(plan, width);
    const number = String(index + 1).padStart(2, '0');
    writeFileSync(join(folder, `${number}.png`), encodePng(shot.damage ? shot.damage(rgb) : rgb, width));
    writeFileSync(join(folder, `${number}.txt`), `${caption(plan, classNoun)}\n`);
  });
  const facts = { name, class_noun: classNoun, phrase: `${name} ${classNoun}`, asymmetric, licence };
  writeFileSync(join(folder, 'character.toml'), Object.entries(facts).map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join(''));
}

const { values } = parseArgs({ options: { only: { type: 'string' }, style: { type: 'string' }, seed: { type: 'string', default: '0' }, out: { type: 'string' } } });
const examples = fileURLToPath(new URL('../../../examples', import.meta.url));
const goodShots = contexts.map((context) => ({ context }));
if (values.style) {
  const noun = createCharacter(values.style, values.seed).noun;
  const name = `${values.style}-${values.seed}`;
  writeCharacter(values.out ?? join(examples, name), name, { style: values.style, seed: values.seed, classNoun: noun, asymmetric: true, licence: 'see NOTICE' }, goodShots);
} else {
  if (values.only && !cast[values.only]) throw new Error(`--only is one of ${Object.keys(cast).join(', ')}`);
  for (const name of values.only ? [values.only] : Object.keys(cast)) {
    writeCharacter(values.out ?? join(examples, name), name, cast[name], name === 'pip' ? poorContexts : goodShots);
  }
}
