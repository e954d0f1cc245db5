// The demo: choose an exchange, then one of its assets; see the question as curl and the answer as it came.

import { colouredJson } from "./json.js";
import { ask as askWithToken } from "./token.js";

const form = document.querySelector("[data-demo]");
const exchanges = form.elements.exchange;
const assets = form.elements.asset;
const field = (name) => document.querySelector(`[data-demo-${name}]`);
const [command, answer, summary] = [field("command"), field("answer"), field("summary")];

let newest = 0; // only the answer to the newest question is shown

function question() {
  const parameters = new URLSearchParams({ asset: assets.value });
  if (exchanges.value) parameters.set("exchange", exchanges.value);
  return `/price?${parameters}`;
}

async function ask() {
  const number = (newest += 1);
  const path = question();
  command.textContent = `curl -H "X-API-Key: $TRINITY_KEY" '${location.origin}${path}'`;
  const began = performance.now();
  let status, wait, body;
  try {
    const response = await askWithToken(path);
    status = response.status;
    wait = response.headers.get("Retry-After");
    body = await response.json();
  } catch {
    if (number === newest) showFailure();
    return;
  }
  if (number !== newest) return;
  answer.replaceChildren(...colouredJson(JSON.stringify(body, null, 2))); // one member a line
  const took = Math.max(1, Math.round(performance.now() - began));
  if (status === 200) {
    summary.textContent = `${body.asset}: ${body.price} ${body.quote} from ${body.exchange}, answered in ${took} ms`;
  } else if (status === 429) {
    summary.textContent = `The demo's limit is reached. Ask again in ${wait} s, or with a key of your own.`;
  } else {
    summary.textContent = `${status}: ${body.title}`;
  }
  summary.dataset.ok = String(status === 200);
}

function showFailure() {
  answer.replaceChildren();
  summary.textContent = "The node does not answer. Is it running?";
  summary.dataset.ok = "false";
}

/** Offer the assets of the chosen exchange, keeping the chosen asset where it is listed there too. */
async function offerAssets() {
  const path = exchanges.value ? `/assets?exchange=${encodeURIComponent(exchanges.value)}` : "/assets";
  const response = await fetch(path);
  if (!response.ok) return;
  const wanted = assets.value;
  const names = (await response.json()).assets.map((row) => row.asset);
  assets.replaceChildren(...names.map((name) => new Option(name, name, name === "BTC", name === wanted)));
  if (!names.includes(wanted)) assets.value = names.includes("BTC") ? "BTC" : names[0];
}

exchanges.addEventListener("change", async () => {
  await offerAssets().catch(showFailure);
  await ask();
});
assets.addEventListener("change", ask);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});

// An exchange that goes live while the page is open can be chosen at once; one that is taken out, no longer.
document.addEventListener("exchange", ({ detail: { name, title, gone } }) => {
  const known = [...exchanges.options].find((option) => option.value === name);
  if (gone && known && !known.selected) known.remove();
  if (!gone && !known) exchanges.add(new Option(title, name));
});

ask();
