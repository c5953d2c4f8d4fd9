// "variant", 1, 12 -> variant01, variant12: the artwork numbers its variants with two digits.
export const numbered = (prefix, ...numbers) => numbers.map((n) => `${prefix}${String(n).padStart(2, '0')}`);
