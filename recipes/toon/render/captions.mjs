// Several ways to say what a picture shows, from every detail down to "a character".
import { scenes } from './scenes.mjs';
import { effects } from './media.mjs';

const article = (words) => (/^(a|an) /.test(words) ? words : `${/^[aeiou]/.test(words) ? 'an' : 'a'} ${words}`);
const joined = (parts) => (parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts[parts.length - 1]}`);
const present = (parts) => parts.filter(Boolean);

// Media whose word names a thing one can have one of; the others name a manner.
const countable = new Set(['comic', 'flat cartoon', 'storybook illustration', 'sticker', 'ink portrait', 'magazine illustration', 'geometric illustration', 'line drawing', 'sketch', 'cartoon', 'drawing', 'pencil drawing', 'blueprint', 'mosaic', 'watercolor', 'woodcut']);
const adjectives = new Set(['sepia', 'black and white', 'neon', 'minimalist']);
function mediumNoun(medium) {
  if (countable.has(medium)) return article(medium);
  return adjectives.has(medium) ? article(`${medium} picture`) : medium;
}

// Other words that people use for the same thing.
const otherPlaces = {
  beach: ['by the sea'], forest: ['in the woods'], city: ['in a city'], 'night city': ['in a city at night'], snow: ['in winter', 'on a snowy day'], desert: ['in a desert'],
  garden: ['among flowers'], mountains: ['near the mountains'], underwater: ['underwater', 'in the ocean'], party: ['at a birthday party'], farm: ['at a farm'], rain: ['on a rainy day'],
  library: ['in front of a bookshelf'], kitchen: ['in the kitchen'], 'football field': ['on a sports field', 'on a soccer field'], castle: ['near a castle'], street: ['on the street'],
  bedroom: ['in the bedroom'], volcano: ['in front of a volcano'], jungle: ['in a jungle'], harbour: ['at the harbour'], circus: ['at the circus'], 'autumn park': ['in autumn', 'in a park'],
  classroom: ['at school'], camping: ['camping'], pumpkins: ['on halloween'],
};
const otherExpressions = { smiling: 'happy', surprised: 'shocked' };

function hairPhrase(character, coloured) {
  const colour = coloured && character.hair_color ? `${character.hair_color} ` : '';
  switch (character.hair) {
    case null: case 'bald': return null;
    case 'balding': return `thinning ${colour}hair`;
    case 'bob': return `a ${colour}bob`.replace('a orange', 'an orange');
    case 'bun': return `${colour}hair in a bun`;
    case 'two buns': return `${colour}hair in two buns`;
    case 'ponytail': case 'braid': case 'mohawk': return article(`${colour}${character.hair}`);
    case 'afro': return article(`${colour}afro`);
    case 'pigtails': case 'braids': case 'dreadlocks': return `${colour}${character.hair}`;
    default: return `${character.hair} ${colour}hair`;
  }
}

function attributePhrases(character, coloured, stream) {
  const phrases = [];
  const hair = hairPhrase(character, coloured);
  if (hair) phrases.push(coloured && character.hair_color && stream.chance(0.25) ? `${character.hair_color} hair` : hair);
  if (character.clothes) {
    const plural = character.clothes === 'overalls';
    const words = coloured && character.clothes_color ? `${character.clothes_color} ${character.clothes}` : character.clothes;
    phrases.push(plural ? words : article(words));
  }
  if (character.glasses_word) phrases.push(character.glasses_word);
  if (character.beard_word) phrases.push(article(character.beard_word));
  if (character.headgear) {
    const bare = character.headgear.replace(/^an? /, '');
    const words = coloured && character.headgear_color ? `${character.headgear_color} ${bare}` : bare;
    phrases.push(character.headgear === 'flowers' ? 'flowers in the hair' : /s$/.test(bare) ? words : article(words));
  }
  if (coloured && character.skin && character.noun !== 'alien' && stream.chance(0.5)) phrases.push(`${character.skin} skin`);
  return stream.shuffled(phrases);
}

function nounOf(character, stream) {
  const roll = stream.next();
  if (character.noun === 'emoji face') return roll < 0.85 ? 'emoji face' : 'character';
  if (['robot', 'alien', 'blob'].includes(character.noun)) return roll < 0.93 ? character.noun : 'character';
  if (roll < 0.82) return character.noun;
  return roll < 0.93 ? 'person' : 'character';
}

const coloursShow = (picture) => !picture.effect || effects[picture.effect].keepsColours;

function expressionWord({ expression }, stream) {
  return otherExpressions[expression] && stream.chance(0.25) ? otherExpressions[expression] : expression;
}

// detail: how many attributes at most.
function subject(character, coloured, detail, stream, { expression = true, size = null } = {}) {
  const colour = coloured ? character.body_color ?? (character.noun === 'alien' ? character.skin : null) : null;
  const words = present([
    size, expression && expressionWord(character, stream), character.hair === 'bald' && detail > 0 && 'bald', colour && (detail > 0 || stream.chance(0.4)) && colour, nounOf(character, stream),
  ]);
  const phrases = attributePhrases(character, coloured, stream).slice(0, detail);
  if (phrases.length === 0) return article(words.join(' '));
  const clothing = phrases.find((phrase) => character.clothes && phrase.endsWith(character.clothes));
  if (clothing && phrases.length > 1 && stream.chance(0.35)) {
    return `${article(words.join(' '))} with ${joined(phrases.filter((phrase) => phrase !== clothing))}, wearing ${clothing}`;
  }
  return `${article(words.join(' '))} with ${joined(phrases)}`;
}

function scenePhrase(picture, stream) {
  if (picture.scene === 'plain') return stream.chance(0.6) ? `on a ${plainName(picture)}` : sceneName(picture);
  const others = otherPlaces[picture.scene];
  if (others && stream.chance(0.25)) return stream.pick(others);
  return stream.chance(0.12) ? `${picture.scene} background` : scenes[picture.scene].at;
}
function inScene(who, picture, stream) {
  const phrase = scenePhrase(picture, stream);
  return phrase.endsWith('background') && !phrase.startsWith('on ') ? `${who}, ${phrase}` : `${who} ${phrase}`;
}
const plainName = (picture) => present(['plain', coloursShow(picture) && picture.background, 'background']).join(' ');
const sceneName = (picture) => (picture.scene !== 'plain' ? picture.scene : coloursShow(picture) ? `${picture.background} background` : 'plain background');

const held = (picture, stream) => picture.prop && `${stream.chance(0.7) ? 'holding' : 'with'} ${article(picture.prop)}`;
const placed = (picture) => ({ left: 'on the left', right: 'on the right' })[picture.place] ?? null;

function pair(picture, coloured, detail, stream, expression) {
  const left = subject(picture.left, coloured, detail, stream, { expression });
  const right = subject(picture.right, coloured, detail, stream, { expression });
  if (stream.chance(0.75)) return `${left} on the left and ${right} on the right`;
  return `two characters, ${left} on the left, ${right} on the right`;
}

function withMedium(picture, text, stream) {
  const kind = stream.next();
  if (kind < 0.04) return `a cartoon of ${text}`;
  if (kind < 0.6) return `${mediumNoun(picture.medium)} of ${text}`;
  if (kind < 0.8) return `${text}, ${picture.medium}`;
  return `${picture.medium}, ${text}`;
}

function fullCaption(picture, coloured, detail, stream) {
  if (picture.count === 2) return withMedium(picture, present([pair(picture, coloured, detail > 3 ? 2 : 1, stream, detail > 3), scenePhrase(picture, stream)]).join(', '), stream);
  const close = picture.size === 'close-up' && stream.chance(0.5);
  const who = subject(picture, coloured, detail, stream, { size: picture.size === 'small' ? 'small' : null });
  const parts = present([close ? `a close-up of ${who}` : who, held(picture, stream), ...stream.shuffled(present([placed(picture), scenePhrase(picture, stream)]))]);
  return withMedium(picture, parts.join(', '), stream);
}

function tagCaption(picture, coloured, stream) {
  const tags = picture.count === 2 ? [pair(picture, coloured, 1, stream, false)] : [subject(picture, coloured, 1, stream), picture.prop && article(picture.prop), placed(picture)];
  return present([picture.medium, ...tags.map((tag) => tag && tag.replace(/^an? /, '')), sceneName(picture)]).join(', ');
}

function shortCaption(picture, coloured, stream) {
  const who = picture.count === 2 ? pair(picture, coloured, 0, stream, false) : subject(picture, coloured, 1, stream, { expression: stream.chance(0.6) });
  return stream.chance(0.8) ? inScene(who, picture, stream) : who;
}

function tinyCaption(picture, stream) {
  if (picture.count === 2) return stream.pick(['two characters', `two characters, ${sceneName(picture)}`, inScene('two characters', picture, stream)]);
  const noun = nounOf(picture, stream);
  return stream.pick([
    'a character', article(noun), inScene(article(noun), picture, stream), `${mediumNoun(picture.medium)} of ${article(noun)}`,
    inScene('a cartoon character', picture, stream), `${picture.medium}, ${sceneName(picture)}`, `a picture of ${article(noun)}`, `a portrait of ${article(noun)}`,
  ]);
}

export function captionsFor(picture, stream) {
  const coloured = coloursShow(picture);
  const captions = [
    fullCaption(picture, coloured, 6, stream),
    fullCaption(picture, coloured, 2 + Math.floor(stream.next() * 3), stream),
    fullCaption(picture, coloured, 1 + Math.floor(stream.next() * 2), stream),
    tagCaption(picture, coloured, stream),
    shortCaption(picture, coloured, stream),
    tinyCaption(picture, stream),
  ];
  return captions.map((caption) => caption.toLowerCase());
}
