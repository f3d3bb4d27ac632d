// The key that the server wants, in memory: a page that is loaded again has forgotten it.

let key = null;

// The server wants a key, or another one: the message says why, where one was shown.
export class KeyRefused extends Error {}

export const hasKey = () => key !== null;
export const forgetKey = () => { key = null; };
export const keyHeaders = () => key === null ? {} : { Authorization: `Bearer ${key}` };

export function keepKey(given) {
  if (!/^[\x21-\x7e]+$/.test(given)) throw new KeyRefused("a key is ASCII, without spaces");
  key = given;
}
