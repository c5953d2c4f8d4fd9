// Styles that no training picture shows: the test of what a technique does with artwork the base has never seen.
import { numbered as v } from './variants.mjs';

export const heldOutStyles = {
  'toon-head': {
    art: 'toonHead', medium: 'cartoon', weight: 1, crop: [0, 0, 1], fixed: { rearHairProbability: 0 },
    hair: {
      short: ['sideComed', 'undercut'], spiky: ['spiky'], bun: ['bun'],
      long: [{ hair: ['sideComed'], rearHair: ['longStraight'] }], wavy: [{ hair: ['sideComed'], rearHair: ['longWavy'] }],
      bob: [{ hair: ['sideComed'], rearHair: ['neckHigh'] }, { hair: ['sideComed'], rearHair: ['shoulderHigh'] }],
    },
    beard: { option: 'beard', variants: { beard: ['fullBeard', 'longBeard', 'chinMoustache'], mustache: ['moustacheTwirl'] } },
    clothes: { option: 'clothes', colour: 'clothesColor', variants: { shirt: ['tShirt', 'shirt'], sweater: ['turtleNeck'], jacket: ['openJacket'], dress: ['dress'] } },
    face: { eyes: ['happy', 'wide'] },
    expressions: {
      smiling: { mouth: ['smile'], eyebrows: ['happy', 'neutral'] }, laughing: { mouth: ['laugh'], eyes: ['bow'], eyebrows: ['raised'] }, sad: { mouth: ['sad'], eyebrows: ['sad'] },
      angry: { mouth: ['angry'], eyebrows: ['angry'] }, surprised: { mouth: ['agape'], eyes: ['wide'], eyebrows: ['raised'] },
      sleepy: { mouth: ['smile'], eyes: ['humble'], eyebrows: ['neutral'] }, winking: { mouth: ['smile'], eyes: ['wink'], eyebrows: ['happy'] },
    },
  },
  dylan: {
    art: 'dylan', medium: 'cartoon', weight: 1, crop: [-0.13, 0.03, 1.26], bust: { centre: 0.5, neck: 0.8, top: 1.04, width: 0.78 },
    fixed: { backgroundColor: ['transparent'] },
    hair: { short: ['plain', 'parting', 'wavy', 'flatTop'], spiky: ['spiky'], curly: ['shortCurls', 'longCurls'], long: ['roundBob', 'shaggy'], bob: ['bangs'] },
    beard: { option: 'facialHair', variants: { beard: ['default'] }, chance: 0.15 },
    expressions: { smiling: { mood: ['happy'] }, laughing: { mood: ['superHappy'] }, sad: { mood: ['sad'] }, angry: { mood: ['angry'] }, serious: { mood: ['neutral'] } },
  },
  croodles: {
    art: 'croodles', medium: 'drawing', weight: 1, crop: [-0.13, 0.04, 1.26], uncolouredSkin: true,
    bust: { centre: 0.5, neck: 0.72, top: 1.03, width: 0.8, outline: 0.014 },
    hairOption: 'top', hairColourOption: 'topColor',
    face: { face: v('variant', 1, 2, 4, 5, 6, 7), nose: v('variant', 1, 3, 5, 7), eyes: v('variant', 16, 1, 4, 11) },
    hair: {
      short: v('variant', 29, 9, 8, 7, 6, 1), spiky: v('variant', 2), bald: v('variant', 28), curly: v('variant', 18, 11, 5),
      long: v('variant', 17, 14, 13, 12), pigtails: v('variant', 16), ponytail: v('variant', 15),
    },
    headgear: { option: 'top', colour: 'topColor', variants: { cap: v('variant', 25), beanie: v('variant', 21), hat: v('variant', 20) }, chance: 0.12 },
    beard: { option: 'beard', variants: { beard: v('variant', 4, 1) } },
    glasses: { option: 'eyes', variants: { glasses: v('variant', 15, 14), sunglasses: v('variant', 9) } },
    expressions: { smiling: { mouth: v('variant', 16, 7, 2) }, laughing: { mouth: v('variant', 11, 10) }, sad: { mouth: v('variant', 18, 14) }, serious: { mouth: v('variant', 6, 1) } },
  },
  'big-ears': {
    art: 'bigEars', medium: 'cartoon', weight: 1, crop: [-0.13, -0.02, 1.28], bust: { centre: 0.5, neck: 0.82, top: 1.06, width: 0.78 },
    fixed: { cheekProbability: 0 },
    face: {
      face: v('variant', 1, 2, 3, 6, 7, 8, 10), ear: v('variant', 1, 2, 3, 5, 7), nose: v('variant', 1, 3, 5, 8, 11), eyes: v('variant', 30, 29, 28, 24, 22, 21, 15, 14, 8, 4),
      frontHair: v('variant', 12, 11, 8, 6, 3), sideburn: v('variant', 1, 3, 5),
    },
    hair: {
      long: v('long', 20, 19, 14, 12, 9, 7, 4), pigtails: v('long', 17, 16), curly: [...v('long', 13, 11), 'short18'], bun: ['long06'], 'two buns': ['long05'],
      bob: v('long', 2, 10, 1), short: v('short', 20, 14, 13, 11, 16, 17, 5), spiky: v('short', 19, 12, 10, 3, 4, 6),
    },
    expressions: {
      smiling: { mouth: ['variant0701', 'variant0702', 'variant0204', 'variant0203'] }, laughing: { mouth: ['variant0302', 'variant0303', 'variant0304'] },
      sad: { mouth: ['variant0705', 'variant0704'] }, angry: { mouth: ['variant0705', 'variant0604'], eyes: v('variant', 1) },
      surprised: { mouth: ['variant0105', 'variant0104'], eyes: v('variant', 26) }, sleepy: { mouth: ['variant0701'], eyes: v('variant', 31) },
    },
  },
};
