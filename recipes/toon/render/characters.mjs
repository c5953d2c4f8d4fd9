// A character: identity drawn once from its own stream, an expression put on later without touching it.
import { createAvatar } from '@dicebear/core';
import * as artwork from '@dicebear/collection';
import { Stream } from './random.mjs';
import { trainingStyles } from './styles_train.mjs';
import { heldOutStyles } from './styles_held_out.mjs';
import { hairColours, hairColourWeights, clothesColours, skins, skinWeights, shade } from './palette.mjs';

export { trainingStyles, heldOutStyles };
export const styles = { ...trainingStyles, ...heldOutStyles };

const womanHair = ['long', 'wavy', 'bob', 'bun', 'two buns', 'ponytail', 'pigtails', 'braid', 'braids', 'curly', 'afro', 'dreadlocks'];
const manHair = ['short', 'very short', 'spiky', 'mohawk', 'bald', 'balding', 'curly', 'afro', 'dreadlocks'];
const hairWeights = { short: 3, long: 2.5, bald: 0.7, balding: 0.7, curly: 1.5, bob: 1.5 };

const uncolouredWords = new Set(['bald', 'balding']);

// A character's name fixes everything that makes it the same one in any picture.
export function createCharacter(styleName, seed) {
  const style = styles[styleName];
  const stream = new Stream(`${styleName}/${seed}`);
  const character = {
    style: styleName, medium: style.medium, seed: `${styleName}/${seed}`, noun: 'person', skin: null, hair: null, hair_color: null,
    glasses: false, glasses_word: null, beard: false, beard_word: null, headgear: null, headgear_color: null,
    clothes: null, clothes_color: null, body_color: null, options: {},
  };
  const options = character.options;
  Object.assign(options, style.fixed);
  for (const [name, variants] of Object.entries(style.face ?? {})) options[name] = [stream.pick(variants)];
  if (style.kind) dressCreature(character, style, stream);
  else dressPerson(character, style, stream);
  return character;
}

function dressCreature(character, style, stream) {
  const options = character.options;
  const names = style.kind === 'robot' ? Object.keys(clothesColours) : ['yellow', 'yellow', 'orange', 'red', 'pink', 'green', 'blue', 'purple'];
  character.noun = { robot: 'robot', emoji: 'emoji face', blob: 'blob' }[style.kind];
  character.body_color = stream.pick(names.filter((name) => name !== 'black'));
  const colour = clothesColours[character.body_color];
  if (style.kind === 'robot') {
    options.baseColor = [colour];
    const textured = stream.chance(0.3);
    options.textureProbability = textured ? 100 : 0;
    if (textured) options.texture = [stream.pick(style.textures)];
    wearHeadgear(character, style, stream);
  }
  if (style.kind === 'emoji') options.backgroundColor = [colour];
  if (style.kind === 'blob') {
    options.shapeColor = [colour];
    const ink = ['yellow', 'white'].includes(character.body_color) || stream.chance(0.3) ? '000000' : 'ffffff';
    options.eyesColor = [ink];
    options.mouthColor = [ink];
  }
  if (style.glasses && stream.chance(0.25)) wearGlasses(character, style, stream);
}

function dressPerson(character, style, stream) {
  const options = character.options;
  const person = stream.weighted({ woman: 43, man: 43, person: 14 });
  chooseSkin(character, style, stream, person);
  chooseHair(character, style, stream, person);
  const covered = fittingHeadgear(style, person).length > 0 && stream.chance(style.headgear.chance);
  if (covered) wearHeadgear(character, style, stream, person);
  options.glassesProbability = options.accessoriesProbability = 0;
  const optionTaken = covered && style.headgear.option === style.glasses?.option;
  if (style.glasses && !optionTaken && stream.chance(0.22)) wearGlasses(character, style, stream);
  chooseBeard(character, style, stream, person);
  chooseClothes(character, style, stream);
}

function chooseSkin(character, style, stream, person) {
  character.skin = stream.weighted(skinWeights);
  const alien = character.skin === 'green' || character.skin === 'blue';
  if (style.uncoloured || style.uncolouredSkin) character.skin = null;
  else {
    character.options.skinColor = [skins[character.skin]];
    character.options.baseColor = [skins[character.skin]];
  }
  const children = { woman: 'girl', man: 'boy', person: 'child' };
  if (alien && character.skin) character.noun = 'alien';
  else character.noun = style.young ? children[person] : person;
}

function chooseHair(character, style, stream, person) {
  const options = character.options;
  const fitting = { woman: womanHair, man: manHair, person: [...new Set([...manHair, ...womanHair])] }[person];
  const weights = {};
  for (const word of Object.keys(style.hair)) if (fitting.includes(word)) weights[word] = hairWeights[word] ?? 1;
  const word = stream.weighted(weights);
  character.hair = word;
  const option = style.hairOption ?? 'hair';
  if (style.hair[word] === null) options[`${option}Probability`] = 0;
  else {
    options[`${option}Probability`] = 100;
    const variant = stream.pick(style.hair[word]);
    if (typeof variant === 'string') options[option] = [variant];
    else Object.assign(options, variant, { rearHairProbability: 100 }); // hair drawn in two parts
  }
  character.hair_color = stream.weighted(hairColourWeights);
  const fixedBlack = style.uncoloured || (style.colouredHair && !style.colouredHair.includes(options[option]?.[0]));
  if (fixedBlack) character.hair_color = 'black';
  const colour = hairColours[character.hair_color];
  options.hairColor = options[style.hairColourOption ?? 'hairColor'] = [colour];
  options.facialHairColor = [colour];
  if (uncolouredWords.has(word)) character.hair_color = word === 'balding' ? character.hair_color : null;
}

function fittingHeadgear(style, person) {
  return Object.keys(style.headgear?.variants ?? {}).filter((word) => {
    if (['hijab', 'flowers', 'cat ears'].includes(word)) return person !== 'man';
    return word !== 'turban' || person !== 'woman';
  });
}

function wearHeadgear(character, style, stream, person) {
  const { option, variants, colour, always, keepsHair, keepsHairColour, blackVariants } = style.headgear;
  const options = character.options;
  const word = stream.pick(fittingHeadgear(style, person));
  character.headgear = word;
  options[option] = [stream.pick(variants[word])];
  options[`${option}Probability`] = 100;
  if (colour) {
    character.headgear_color = stream.pick(Object.keys(clothesColours));
    options[colour] = [clothesColours[character.headgear_color]];
    if (blackVariants?.includes(options[option][0])) character.headgear_color = 'black';
  }
  if (always || keepsHair) return;
  character.hair = keepsHairColour ? 'long' : null;
  if (!keepsHairColour) character.hair_color = null;
}

function wearGlasses(character, style, stream) {
  const { option, variants, colour } = style.glasses;
  const words = Object.keys(variants);
  const word = words.includes('glasses') && stream.chance(0.62) ? 'glasses' : stream.pick(words);
  character.glasses = word !== 'an eyepatch';
  character.glasses_word = word;
  character.lockedOption = option === 'eyes' ? 'eyes' : null;
  character.options[option] = [stream.pick(variants[word])];
  character.options[`${option}Probability`] = 100;
  if (colour) character.options[colour] = ['26262b'];
}

function chooseBeard(character, style, stream, person) {
  const options = character.options;
  const beard = style.beard;
  const probability = beard ? `${beard.option}Probability` : null;
  const wanted = beard && person === 'man' && character.headgear !== 'cat ears' && stream.chance(beard.chance ?? 0.4);
  const optionTaken = beard?.option === style.glasses?.option && character.glasses_word;
  if (!wanted || optionTaken) {
    if (beard && !optionTaken && beard.option !== style.headgear?.option) options[probability] = 0;
    return;
  }
  const word = stream.pick(Object.keys(beard.variants));
  character.beard = true;
  character.beard_word = word;
  options[beard.option] = [stream.pick(beard.variants[word])];
  options[probability] = 100;
}

function chooseClothes(character, style, stream) {
  const options = character.options;
  if (!style.clothes && !style.bust) return;
  const variants = style.clothes?.variants ?? { shirt: null, jacket: null };
  character.clothes = stream.chance(0.5) ? 'shirt' : stream.pick(Object.keys(variants).filter((word) => word !== 'dress' || character.noun === 'woman'));
  if (variants[character.clothes]) options[style.clothes.option] = [stream.pick(variants[character.clothes])];
  // Clothes in the very colour of the hair hide the hair's shape.
  const names = Object.keys(clothesColours).filter((name) => name !== character.hair_color);
  if (style.uncoloured) return;
  const hatTakesIt = style.headgear?.colour === style.clothes?.colour && character.headgear && character.headgear_color !== 'black';
  character.clothes_color = hatTakesIt ? character.headgear_color : stream.pick(names);
  if (style.clothes) options[style.clothes.colour] = [clothesColours[character.clothes_color]];
}

export function expressionsOf(styleName) {
  return Object.keys(styles[styleName].expressions);
}

// Which of an expression's variants a character shows is part of its identity: it always smiles its own smile.
function expressionOptions(character, expression) {
  const stream = new Stream(`${character.seed}/${expression}`);
  const chosen = {};
  for (const [option, variants] of Object.entries(styles[character.style].expressions[expression])) {
    const variant = stream.pick(variants);
    if (option !== character.lockedOption) chosen[option] = [variant];
  }
  return chosen;
}

// The artwork's own drawing, without the outer element: {inner, unit}, unit being the width of its coordinate system.
function drawArtwork(character, expression) {
  const style = styles[character.style];
  const options = { ...character.options, ...expressionOptions(character, expression) };
  const svg = createAvatar(artwork[style.art], { seed: character.seed, clip: style.kind === 'emoji', ...options }).toString();
  const unit = Number(/viewBox="0 0 (\d+)/.exec(svg)[1]);
  return { inner: svg.slice(svg.indexOf('>') + 1, svg.lastIndexOf('</svg>')), unit };
}

// Artwork that ends at the chin gets shoulders, so that every character can wear clothes and stand in a scene.
function drawBust(character, bust, unit, bottom) {
  const x = (part) => ((bust.centre + part) * unit).toFixed(1);
  const y = (part) => (part * unit).toFixed(1);
  const half = bust.width / 2;
  const robot = character.noun === 'robot';
  const skin = character.skin ? skins[character.skin] : 'ffffff';
  const cloth = robot ? shade(clothesColours[character.body_color], 0.82) : clothesColours[character.clothes_color];
  const line = bust.outline ? `stroke="#1a1a1a" stroke-width="${y(bust.outline)}" stroke-linejoin="round"` : '';
  const shoulders = `M${x(-half)} ${y(bottom)}C${x(-half)} ${y(bust.top + 0.08)} ${x(-half * 0.75)} ${y(bust.top + 0.03)} ${x(-0.13)} ${y(bust.top)}`
    + `L${x(0.13)} ${y(bust.top)}C${x(half * 0.75)} ${y(bust.top + 0.03)} ${x(half)} ${y(bust.top + 0.08)} ${x(half)} ${y(bottom)}Z`;
  const parts = [];
  if (robot) {
    parts.push(`<rect x="${x(-0.13)}" y="${y(bust.neck)}" width="${y(0.26)}" height="${y(0.3)}" fill="#8d939c"/>`);
    parts.push(`<path d="${shoulders}" fill="#${cloth}"/>`);
    parts.push(`<rect x="${x(-0.16)}" y="${y(bust.top + 0.08)}" width="${y(0.32)}" height="${y(0.3)}" rx="${y(0.03)}" fill="#ffffff" fill-opacity="0.45"/>`);
    return parts.join('');
  }
  parts.push(`<path d="${shoulders}" fill="#${cloth}" ${line}/>`);
  if (character.clothes === 'jacket') {
    const opening = `M${x(-0.13)} ${y(bust.top)}L${x(-0.06)} ${y(bottom)}L${x(0.06)} ${y(bottom)}L${x(0.13)} ${y(bust.top)}Z`;
    parts.push(`<path d="${opening}" fill="#${character.clothes_color === 'white' ? '5b6573' : 'ffffff'}" ${line}/>`);
  }
  if (bust.neck) {
    const neck = `M${x(-0.1)} ${y(bust.neck)}V${y(bust.top)}Q${x(0)} ${y(bust.top + 0.13)} ${x(0.1)} ${y(bust.top)}V${y(bust.neck)}Z`;
    parts.push(`<path d="${neck}" fill="#${shade(skin, character.skin ? 0.9 : 1)}" ${line}/>`);
  }
  return parts.join('');
}

// A square drawing of the character whose lower edge is where its bust is cut off.
export function drawCharacter(character, expression) {
  const style = styles[character.style];
  const { inner, unit } = drawArtwork(character, expression);
  const [left, top, side] = style.crop;
  const bust = style.bust ? drawBust(character, style.bust, unit, top + side + 0.02) : '';
  const box = [left, top, side, side].map((value) => (value * unit).toFixed(2)).join(' ');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}" fill="none">${bust}${inner}</svg>`;
}
