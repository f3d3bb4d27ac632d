// Calls of this server, with the key that this tab was given.

const STORED = "pushforward.key";

// The server wants a key, or another one: the message says why, where one was shown.
export class KeyRefused extends Error {}

export const hasKey = () => sessionStorage.getItem(STORED) !== null;
export const forgetKey = () => sessionStorage.removeItem(STORED);

export function keepKey(key) {
  if (!/^[\x21-\x7e]+$/.test(key)) throw new KeyRefused("a key is ASCII, without spaces");
  sessionStorage.setItem(STORED, key);
}

async function reason(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `the answer is ${answer.status} ${answer.statusText}`; // a proxy's own, say
  }
}

async function request(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (hasKey()) headers.Authorization = `Bearer ${sessionStorage.getItem(STORED)}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) throw new KeyRefused(hasKey() ? await reason(answer) : "");
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

export const get = async path => (await request(path)).json();

export const post = (path, body, accept = "application/json") => request(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", Accept: accept },
  body: JSON.stringify(body),
});
