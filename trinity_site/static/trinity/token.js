// Questions of this page: asked with a token that this site gives its own pages for a few minutes, never with a key.

let token = null; // a promise of one: several questions at once wait for the same

async function fetchToken() {
  const answer = await fetch("/demo-token", { method: "POST", cache: "no-store" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return (await answer.json()).token;
}

/** Ask like fetch does; a token that has ended is replaced once. */
export async function ask(path) {
  const answer = await askOnce(path);
  if (answer.status !== 401) return answer;
  token = null;
  return askOnce(path);
}

async function askOnce(path) {
  token ??= fetchToken();
  try {
    const headers = { Authorization: `Bearer ${await token}` };
    return await fetch(path, { cache: "no-store", headers });
  } catch (error) {
    token = null;
    throw error;
  }
}
