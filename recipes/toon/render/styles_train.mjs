// The character styles the model is trained on: which drawn variant answers to which word.
// crop and bust are in units of the artwork's own width. `expressions` lists, for each word, the variants that show it.
import { numbered as v } from './variants.mjs';

export const trainingStyles = {
  adventurer: {
    art: 'adventurer', medium: 'comic', weight: 1, crop: [-0.12, -0.03, 1.2],
    bust: { centre: 0.48, neck: 0.74, top: 0.95, width: 0.86, outline: 0.012 },
    fixed: { featuresProbability: 0 },
    face: { eyes: v('variant', 26, 25, 24, 12, 3, 23, 10), eyebrows: v('variant', 10, 9, 6, 5, 4, 13, 14) },
    hair: {
      spiky: ['short16'], mohawk: ['short15', 'short12'], balding: ['short13'], bald: ['short19'],
      short: v('short', 14, 11, 10, 4, 1, 2, 7), curly: v('short', 3, 9, 17, 18), long: v('long', 20, 9, 7, 4, 5),
      wavy: v('long', 17, 24, 6, 22), bob: v('long', 1, 26, 25, 21), ponytail: ['long19'], braid: ['long16'],
      pigtails: v('long', 15, 14), 'two buns': v('long', 13, 23), bun: v('long', 12, 11, 10),
    },
    headgear: { option: 'hair', variants: { flowers: v('long', 8, 3) }, keepsHairColour: true, chance: 0.04 },
    glasses: { option: 'glasses', variants: { sunglasses: v('variant', 1), glasses: v('variant', 4, 5, 2) } },
    beard: { option: 'features', variants: { mustache: ['mustache'] }, chance: 0.18 },
    expressions: {
      smiling: { mouth: v('variant', 1, 2, 22, 23) }, laughing: { mouth: v('variant', 28, 27, 26, 25) },
      sad: { mouth: v('variant', 3, 19), eyes: v('variant', 15, 16), eyebrows: v('variant', 13) },
      angry: { mouth: v('variant', 11, 14), eyes: v('variant', 26, 12), eyebrows: v('variant', 1, 2) },
      surprised: { mouth: v('variant', 15, 18), eyes: v('variant', 8, 26) }, serious: { mouth: v('variant', 9, 10) },
      sleepy: { mouth: v('variant', 9, 2), eyes: v('variant', 20) }, winking: { mouth: v('variant', 1, 23), eyes: v('variant', 22, 21) },
    },
  },
  avataaars: {
    art: 'avataaars', medium: 'flat cartoon', weight: 1.1, crop: [0, 0, 1],
    fixed: { eyebrows: ['defaultNatural'] },
    hair: {
      short: ['shortFlat', 'shortRound', 'theCaesar', 'theCaesarAndSidePart', 'shortWaved', 'frizzle'], balding: ['sides'], bald: null,
      afro: ['fro'], curly: ['curly', 'shortCurly'], dreadlocks: ['dreads', 'dreads02'], bob: ['bob', 'miaWallace'], bun: ['bun'],
      long: ['straight01', 'straight02', 'straightAndStrand', 'longButNotTooLong'], wavy: ['curvy', 'bigHair'],
    },
    hairOption: 'top',
    headgear: {
      option: 'top', colour: 'hatColor', chance: 0.14,
      variants: { hat: ['hat'], hijab: ['hijab'], turban: ['turban'], 'winter hat': ['winterHat1', 'winterHat02'], 'santa hat': ['winterHat03'] },
    },
    glasses: { option: 'accessories', colour: 'accessoriesColor', variants: { glasses: ['prescription01', 'prescription02', 'round'], sunglasses: ['wayfarers', 'kurt'], 'an eyepatch': ['eyepatch'] } },
    beard: { option: 'facialHair', colour: 'facialHairColor', variants: { beard: ['beardLight', 'beardMajestic', 'beardMedium'], mustache: ['moustacheFancy', 'moustacheMagnum'] } },
    clothes: {
      option: 'clothing', colour: 'clothesColor',
      variants: { shirt: ['shirtCrewNeck', 'shirtScoopNeck', 'shirtVNeck'], jacket: ['blazerAndShirt', 'blazerAndSweater'], sweater: ['collarAndSweater'], hoodie: ['hoodie'], overalls: ['overall'] },
    },
    expressions: {
      smiling: { mouth: ['smile', 'twinkle'], eyes: ['default'] }, laughing: { mouth: ['smile', 'default'], eyes: ['happy'] },
      sad: { mouth: ['sad', 'concerned'], eyes: ['default', 'cry'], eyebrows: ['sadConcerned', 'sadConcernedNatural'] },
      angry: { mouth: ['serious', 'grimace', 'sad'], eyes: ['default', 'squint'], eyebrows: ['angry', 'angryNatural'] },
      surprised: { mouth: ['screamOpen', 'disbelief'], eyes: ['surprised'], eyebrows: ['raisedExcited'] },
      serious: { mouth: ['serious'], eyes: ['default'] }, sleepy: { mouth: ['serious', 'twinkle'], eyes: ['closed'] },
      winking: { mouth: ['smile', 'twinkle'], eyes: ['wink'] },
    },
  },
  'big-smile': {
    art: 'bigSmile', medium: 'storybook illustration', weight: 0.9, crop: [-0.17, 0, 1.24], young: true,
    bust: { centre: 0.44, neck: 0.8, top: 1.0, width: 0.74 },
    hair: {
      short: ['shortHair'], mohawk: ['mohawk'], wavy: ['wavyBob'], bob: ['bowlCutHair'], curly: ['curlyBob', 'curlyShortHair'],
      long: ['straightHair', 'bangs'], braids: ['braids'], 'very short': ['shavedHead'], bun: ['bunHair'],
    },
    glasses: { option: 'accessories', variants: { glasses: ['glasses'], sunglasses: ['sunglasses'] } },
    headgear: { option: 'accessories', keepsHair: true, variants: { 'cat ears': ['catEars'] }, chance: 0.08 },
    beard: { option: 'accessories', variants: { mustache: ['mustache'] }, chance: 0.1 },
    expressions: {
      smiling: { mouth: ['kawaii', 'teethSmile'], eyes: ['normal', 'cheery'] }, laughing: { mouth: ['openedSmile', 'gapSmile'], eyes: ['cheery'] },
      sad: { mouth: ['openSad'], eyes: ['sad'] }, angry: { mouth: ['unimpressed', 'awkwardSmile'], eyes: ['angry'] },
      serious: { mouth: ['unimpressed'], eyes: ['normal'] },
      sleepy: { mouth: ['unimpressed', 'kawaii'], eyes: ['sleepy'] }, winking: { mouth: ['openedSmile', 'kawaii'], eyes: ['winking'] },
    },
  },
  bottts: {
    art: 'bottts', medium: 'vector art', weight: 1.1, kind: 'robot', crop: [-0.15, -0.02, 1.3],
    bust: { centre: 0.5, neck: 0.85, top: 1.06, width: 0.8 },
    face: {
      face: ['round01', 'round02', 'square01', 'square02', 'square03', 'square04'], sides: ['antenna01', 'cables01', 'round', 'square', 'squareAssymetric'],
      eyes: ['bulging', 'eva', 'frame1', 'frame2', 'glow', 'robocop', 'round', 'roundFrame01', 'roundFrame02', 'sensor', 'shade01'],
    },
    textures: ['camo01', 'camo02', 'circuits', 'dirty01', 'dots'],
    headgear: {
      option: 'top', always: true,
      variants: { 'an antenna': ['antenna', 'antennaCrooked'], horns: ['horns'], 'a radar dish': ['radar'], 'a pyramid hat': ['pyramid'], lights: ['lights'], 'a light bulb': ['bulb01'] },
    },
    expressions: { smiling: { mouth: ['smile01', 'smile02'] }, laughing: { mouth: ['smile02'], eyes: ['happy'] }, serious: { mouth: ['grill02', 'square01', 'square02', 'diagram'] }, angry: { mouth: ['bite'] } },
  },
  'fun-emoji': {
    art: 'funEmoji', medium: 'emoji', weight: 0.4, kind: 'emoji', crop: [-0.09, -0.09, 1.18], fixed: { radius: 50 },
    glasses: { option: 'eyes', variants: { glasses: ['glasses'], sunglasses: ['shades'] } },
    face: {},
    expressions: {
      smiling: { mouth: ['lilSmile', 'wideSmile'], eyes: ['cute', 'plain'] }, laughing: { mouth: ['smileLol', 'smileTeeth'], eyes: ['closed', 'cute'] },
      sad: { mouth: ['sad'], eyes: ['sad', 'tearDrop'] }, angry: { mouth: ['pissed', 'sad'], eyes: ['pissed'] }, surprised: { mouth: ['shout'], eyes: ['plain'] },
      serious: { mouth: ['plain'], eyes: ['plain', 'cute'] }, sleepy: { mouth: ['plain', 'lilSmile'], eyes: ['sleepClose', 'closed2'] }, winking: { mouth: ['lilSmile', 'wideSmile'], eyes: ['wink', 'wink2'] },
    },
  },
  thumbs: {
    art: 'thumbs', medium: 'sticker', weight: 0.4, kind: 'blob', crop: [-0.07, -0.14, 1.14],
    fixed: { backgroundColor: ['transparent'], faceRotation: [0], shapeRotation: [0], shapeOffsetX: [0], shapeOffsetY: [0] },
    face: { face: ['variant1', 'variant2', 'variant3', 'variant4', 'variant5'] },
    expressions: {
      smiling: { mouth: ['variant3', 'variant4'], eyes: ['variant5W14', 'variant6W14'] }, laughing: { mouth: ['variant2', 'variant1'], eyes: ['variant3W14', 'variant4W14'] },
      sleepy: { mouth: ['variant3'], eyes: ['variant2W14'] }, winking: { mouth: ['variant1', 'variant4'], eyes: ['variant9W14'] },
    },
  },
  lorelei: {
    art: 'lorelei', medium: 'ink portrait', weight: 1, crop: [-0.06, 0.02, 1.12],
    bust: { centre: 0.52, top: 0.87, width: 0.82, outline: 0.012 },
    fixed: { frecklesProbability: 0, hairAccessoriesProbability: 0, noseColor: ['1a1a1a'] },
    face: { head: v('variant', 1, 2, 3, 4), nose: v('variant', 1, 2, 3, 4, 5, 6), eyes: v('variant', 24, 21, 4, 16, 14, 20, 10, 2), eyebrows: v('variant', 10, 9, 7, 5, 3, 12) },
    hair: {
      short: v('variant', 47, 43, 12, 7, 8, 3, 2, 1), mohawk: v('variant', 27), spiky: v('variant', 20, 4), long: v('variant', 21, 15, 16, 40),
      bob: v('variant', 19, 23, 17, 13), bun: v('variant', 46, 45, 14), 'two buns': v('variant', 26), ponytail: v('variant', 31, 42, 48),
      curly: v('variant', 39, 24, 18, 5), wavy: v('variant', 35), bald: v('variant', 34), balding: v('variant', 25),
    },
    glasses: { option: 'glasses', variants: { glasses: v('variant', 1, 3, 4), sunglasses: v('variant', 2) } },
    beard: { option: 'beard', variants: { beard: v('variant', 1, 2) } },
    expressions: {
      smiling: { mouth: v('happy', 1, 2, 5, 6) }, laughing: { mouth: v('happy', 7, 16) }, sad: { mouth: v('sad', 4, 5), eyebrows: v('variant', 1) },
      angry: { mouth: v('sad', 5, 6, 7), eyebrows: v('variant', 13) }, surprised: { mouth: v('sad', 1), eyes: v('variant', 16, 21) }, serious: { mouth: ['happy14', 'sad09'] },
      sleepy: { mouth: v('happy', 14, 1), eyes: v('variant', 19, 1) }, winking: { mouth: v('happy', 5, 2), eyes: v('variant', 18) },
    },
  },
  micah: {
    art: 'micah', medium: 'magazine illustration', weight: 1, crop: [0, 0, 1],
    fixed: { glassesColor: ['1a1a1a'] },
    face: { nose: ['curve', 'pointed', 'tound'], ears: ['attached', 'detached'], eyes: ['eyes', 'round', 'eyesShadow'], eyebrows: ['up', 'eyelashesUp'] },
    hair: { short: ['fonze'], mohawk: ['mrT'], balding: ['dougFunny'], bald: ['mrClean'], long: ['full'], bob: ['pixie'] },
    glasses: { option: 'glasses', variants: { glasses: ['round', 'square'] } },
    beard: { option: 'facialHair', colour: 'facialHairColor', variants: { beard: ['beard'] } },
    clothes: { option: 'shirt', colour: 'shirtColor', variants: { shirt: ['crew', 'collared', 'open'] } },
    expressions: {
      smiling: { mouth: ['smile', 'smirk'] }, laughing: { mouth: ['laughing'], eyes: ['smiling', 'eyes'] }, sad: { mouth: ['sad'], eyebrows: ['up'] },
      angry: { mouth: ['frown', 'nervous'], eyebrows: ['down'] }, surprised: { mouth: ['surprised'], eyes: ['round'] },
    },
  },
  miniavs: {
    art: 'miniavs', medium: 'geometric illustration', weight: 0.7, crop: [0, 0, 1],
    face: { head: ['normal', 'wide', 'thin'] }, fixed: { blushesProbability: 0 },
    hair: { balding: ['balndess', 'slaughter'], ponytail: ['ponyTail'], long: ['long'], curly: ['curly'], short: ['classic01', 'classic02', 'stylish', 'elvis'] },
    glasses: { option: 'glasses', variants: { glasses: ['normal'] } },
    beard: { option: 'mustache', variants: { mustache: ['horshoe', 'freddy', 'pencilThin'] } },
    clothes: { option: 'body', colour: 'bodyColor', variants: { shirt: ['tShirt'], 'polo shirt': ['golf'] } },
    expressions: { smiling: { mouth: ['default', 'missingTooth'], eyes: ['normal'] } },
  },
  notionists: {
    art: 'notionists', medium: 'line drawing', weight: 0.8, crop: [0.02, 0.02, 0.96], uncoloured: true,
    fixed: { bodyIconProbability: 0, gestureProbability: 0 },
    face: { nose: v('variant', 1, 3, 5, 8, 10, 12, 15, 18), brows: v('variant', 1, 4, 5, 6, 7, 12), eyes: v('variant', 4, 5) },
    hair: {
      short: v('variant', 60, 56, 55, 54, 49, 44, 38, 35, 34, 32, 25, 24, 13), spiky: v('variant', 53, 51, 50), bun: v('variant', 57, 48), 'two buns': v('variant', 59),
      ponytail: v('variant', 47, 39), long: v('variant', 41, 58, 23), wavy: v('variant', 28, 36, 37), bob: v('variant', 43, 10, 2), curly: v('variant', 40, 33, 22, 20),
    },
    headgear: { option: 'hair', variants: { hijab: v('variant', 63, 62), turban: v('variant', 61), cap: ['hat'] }, chance: 0.1 },
    glasses: { option: 'glasses', variants: { glasses: v('variant', 11, 8, 3), sunglasses: v('variant', 10, 9, 7, 5, 4, 2, 1) } },
    beard: { option: 'beard', variants: { beard: v('variant', 2, 1), mustache: v('variant', 3, 11, 6) } },
    clothes: { option: 'body', variants: { shirt: v('variant', 21, 5, 1, 10), jacket: v('variant', 18, 17, 9, 16), hoodie: v('variant', 23), 'spotted shirt': v('variant', 24, 15) } },
    expressions: {
      smiling: { lips: v('variant', 23, 22, 3) }, laughing: { lips: v('variant', 30, 14, 25) }, sad: { lips: v('variant', 24, 18), brows: v('variant', 13) },
      surprised: { lips: v('variant', 29, 15) }, serious: { lips: v('variant', 21, 13) },
    },
  },
  'open-peeps': {
    art: 'openPeeps', medium: 'sketch', weight: 1, crop: [0, 0, 1], fixed: { maskProbability: 0 }, hairOption: 'head', hairColourOption: 'headContrastColor',
    hair: {
      afro: ['afro'], bob: ['bangs', 'bangs', 'bangs2', 'mediumStraight'], bald: ['noHair1'], balding: ['noHair3'], braids: ['cornrows2'],
      'two buns': ['buns'], bun: ['grayBun', 'grayMedium'], short: ['grayShort', 'grayShort', 'short4', 'short4', 'short1', 'flatTop'], curly: ['longCurly', 'twists'],
      dreadlocks: ['dreads1', 'dreads2'], long: ['long', 'longBangs'], mohawk: ['mohawk', 'mohawk2'], ponytail: ['mediumBangs2'],
    },
    // The other heads are drawn with black hair, whatever colour is asked for.
    colouredHair: ['bangs', 'grayBun', 'grayMedium', 'grayShort', 'short4', 'mohawk', 'mohawk2', 'noHair3', 'mediumBangs2'],
    headgear: { option: 'head', colour: 'clothingColor', variants: { beanie: ['hatBeanie'], turban: ['turban'], hat: ['hatHip'], hijab: ['hijab'] }, chance: 0.1, blackVariants: ['hatHip', 'hijab'] },
    glasses: { option: 'accessories', variants: { glasses: ['glasses', 'glasses2', 'glasses3', 'glasses5'], sunglasses: ['sunglasses', 'sunglasses2'], 'an eyepatch': ['eyepatch'] } },
    beard: { option: 'facialHair', variants: { beard: ['full', 'full2', 'full3', 'goatee2'], mustache: ['moustache2', 'moustache3', 'moustache5'] } },
    clothes: { colour: 'clothingColor', variants: { shirt: null } },
    expressions: {
      smiling: { face: ['smile', 'cheeky', 'cute', 'calm'] }, laughing: { face: ['smileLOL', 'smileBig', 'lovingGrin1'] }, sad: { face: ['solemn', 'concernedFear'] },
      angry: { face: ['angryWithFang', 'veryAngry', 'rage'] }, surprised: { face: ['awe', 'fear', 'hectic'] }, serious: { face: ['serious', 'suspicious'] }, sleepy: { face: ['eyesClosed', 'tired'] },
    },
  },
  personas: {
    art: 'personas', medium: 'minimalist', weight: 1, crop: [0, 0, 1], face: { nose: ['mediumRound', 'smallRound'] }, fixed: { eyes: ['open'] },
    hair: {
      long: ['long', 'extraLong'], short: ['shortCombover', 'shortComboverChops', 'fade'], curly: ['curlyHighTop'], bob: ['bobCut', 'bobBangs'], afro: ['curly'],
      pigtails: ['pigtails'], bun: ['curlyBun', 'straightBun'], 'very short': ['buzzcut'], bald: ['bald'], balding: ['balding'], mohawk: ['mohawk'],
    },
    headgear: { option: 'hair', variants: { cap: ['cap'], beanie: ['beanie'] }, chance: 0.1 },
    glasses: { option: 'eyes', variants: { glasses: ['glasses'], sunglasses: ['sunglasses'] } },
    beard: { option: 'facialHair', variants: { beard: ['beardMustache', 'goatee'], mustache: ['walrus', 'pyramid'] } },
    clothes: { option: 'body', colour: 'clothingColor', variants: { shirt: ['squared', 'rounded'], 'checkered shirt': ['checkered'] } },
    expressions: {
      smiling: { mouth: ['smile', 'smirk'] }, laughing: { mouth: ['bigSmile'], eyes: ['happy'] }, sad: { mouth: ['frown'] },
      surprised: { mouth: ['surprise'] }, sleepy: { mouth: ['smile', 'smirk'], eyes: ['sleep'] }, winking: { mouth: ['smile', 'bigSmile'], eyes: ['wink'] },
    },
  },
  'pixel-art': {
    art: 'pixelArt', medium: 'pixel art', weight: 1.1, crop: [0, 0, 1], fixed: { accessoriesProbability: 0, mouthColor: ['c0392b'] },
    face: { eyes: v('variant', 1, 3, 4, 6, 7, 8, 9, 11), eyesColor: ['4b5563', '2f6fd6', '3f7d4a', '6b4423'] },
    hair: {
      short: v('short', 22, 17, 15, 14, 6, 4, 3, 2, 1), balding: v('short', 18, 23), mohawk: v('short', 21), spiky: v('short', 13, 11),
      long: v('long', 21, 20, 13, 12, 9, 7, 1), pigtails: v('long', 19, 18), ponytail: v('long', 6),
    },
    headgear: { option: 'hat', colour: 'hatColor', keepsHair: true, variants: { cap: v('variant', 2, 7), hat: v('variant', 6, 8, 10), beanie: v('variant', 3, 4) }, chance: 0.12 },
    glasses: { option: 'glasses', colour: 'glassesColor', variants: { glasses: v('light', 1, 2, 5), sunglasses: v('dark', 1, 2, 6) } },
    beard: { option: 'beard', variants: { beard: v('variant', 5, 7, 8, 3) } },
    clothes: { option: 'clothing', colour: 'clothingColor', variants: { shirt: v('variant', 1, 3, 8, 11, 12, 14, 20, 22, 23) } },
    expressions: {
      smiling: { mouth: v('happy', 9, 7, 10) }, laughing: { mouth: v('happy', 6, 12) }, sad: { mouth: v('sad', 1, 3, 10) }, serious: { mouth: v('sad', 4, 5, 7) }, surprised: { mouth: v('happy', 13) },
    },
  },
};
