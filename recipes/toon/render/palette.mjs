// Named colours: a word in a caption always means the same colour in the picture.

export const hairColours = {
  black: '2a2326', brown: '7a4a28', blonde: 'edc55c', red: 'c2371f', orange: 'f28a2a', grey: '9c9ca0',
  white: 'f4f1ea', pink: 'f287b4', blue: '3b78d8', green: '46a851', purple: '8a4cc0',
};
export const hairColourWeights = {
  black: 14, brown: 16, blonde: 16, red: 13, orange: 6, grey: 6, white: 5, pink: 8, blue: 8, green: 6, purple: 7,
};
export const clothesColours = {
  red: 'd8342f', orange: 'f58220', yellow: 'f8d338', green: '3fa34d', blue: '2f6fd6', purple: '8442b8',
  pink: 'f27bb0', white: 'f4f4f4', black: '2b2b30', brown: '7b4b2a', grey: '9a9ca3',
};
export const skins = { pale: 'fbdcc4', tan: 'e3ad7a', brown: 'a86b3c', dark: '623c26', green: '8fca6b', blue: '86b8ee' };
export const skinWeights = { pale: 36, tan: 28, brown: 18, dark: 14, green: 2.2, blue: 1.8 };

export const backgrounds = {
  white: 'ffffff', blue: '3f83dd', 'light blue': 'a9d8f5', red: 'd9423c', green: '58b368', yellow: 'fbdc5b',
  pink: 'f7b3cf', grey: 'b9bcc2', black: '26262b', orange: 'f7994a', purple: '9a62c9',
};

export function shade(hex, factor) {
  const channel = (i) => Math.max(0, Math.min(255, Math.round(parseInt(hex.slice(i, i + 2), 16) * factor)));
  return [0, 2, 4].map((i) => channel(i).toString(16).padStart(2, '0')).join('');
}
