// The live part of the home and status pages: prices, ages, trails, and the state of the exchanges.

import { ageText, priceText, watch } from "./live.js";
import { ask } from "./token.js";

const TRAIL_POINTS = 60;
const WIDTH = 120;
const HEIGHT = 32;
const STATE_WORDS = { live: "live", delayed: "delayed", silent: "no data" };

const cards = new Map();
const line = document.querySelector("[data-connection]");

for (const element of document.querySelectorAll("[data-price]")) {
  const field = (name) => element.querySelector(`[data-field="${name}"]`);
  const card = {
    element,
    price: field("price"),
    quote: field("quote"),
    exchange: field("exchange"),
    age: field("age"),
    direction: field("direction"),
    trail: field("trail"),
    ttl: Number(element.dataset.ttlMs),
    digits: element.dataset.digits ?? "",
    at: element.dataset.ageMs ? performance.now() - Number(element.dataset.ageMs) : null,
    points: (element.dataset.trail ?? "").split(" ").filter(Boolean).map(Number),
  };
  cards.set(element.dataset.price, card);
  if (card.digits) card.price.textContent = priceText(card.digits);
  drawTrail(card);
}
for (const element of document.querySelectorAll("[data-age-ms]:not([data-price])")) {
  if (element.dataset.ageMs) element.dataset.since = performance.now() - Number(element.dataset.ageMs);
}

function showPrice(asset, row) {
  const card = cards.get(asset);
  if (!card) return;
  card.at = row.at;
  card.exchange.textContent = row.exchange;
  card.quote.textContent = row.quote;
  if (row.price === card.digits) return;
  const rise = card.digits === "" ? 0 : Math.sign(Number(row.price) - Number(card.digits));
  card.digits = row.price;
  card.price.textContent = priceText(row.price);
  if (rise !== 0) flash(card, rise > 0 ? "up" : "down");
}

function flash(card, way) {
  card.element.dataset.way = way;
  card.direction.textContent = way === "up" ? "▲" : "▼";
  card.price.classList.remove("flash-up", "flash-down");
  void card.price.offsetWidth; // begins the animation anew
  card.price.classList.add(`flash-${way}`);
}

function showExchange(name, row) {
  for (const element of document.querySelectorAll(`[data-exchange-state="${CSS.escape(name)}"]`)) {
    element.dataset.state = row.state;
    element.querySelector("[data-field=state]").textContent = STATE_WORDS[row.state] ?? row.state;
    const age = element.querySelector("[data-field=age]");
    if (age && row.at !== undefined) age.dataset.since = row.at;
  }
  document.dispatchEvent(new CustomEvent("exchange", { detail: { name, title: row.name, gone: false } }));
}

function forgetExchange(name) {
  for (const element of document.querySelectorAll(`[data-exchange-state="${CSS.escape(name)}"]`)) {
    element.dataset.state = "silent";
    element.querySelector("[data-field=state]").textContent = "taken out";
  }
  document.dispatchEvent(new CustomEvent("exchange", { detail: { name, gone: true } }));
}

function showHeadline(row) {
  const element = document.querySelector("[data-headline]");
  if (!element || element.dataset.state === row.state && element.textContent === row.text) return;
  element.dataset.state = row.state;
  element.querySelector("[data-field=text]").textContent = row.text;
}

function growOlder() {
  const now = performance.now();
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = `${ageText(now - Number(element.dataset.since))} ago`;
  }
  for (const card of cards.values()) {
    if (card.at === null) continue;
    const age = now - card.at;
    card.age.textContent = `${ageText(age)} ago`;
    card.element.classList.toggle("stale", age > card.ttl);
  }
}

function growTrails() {
  for (const card of cards.values()) {
    if (card.digits === "") continue;
    card.points.push(Number(card.digits));
    if (card.points.length > TRAIL_POINTS) card.points.shift();
    drawTrail(card);
  }
}

function drawTrail(card) {
  card.trail.setAttribute("points", trailPoints(card.points));
  card.element.dataset.trend = card.points.at(-1) < card.points[0] ? "down" : "up";
}

/** Return the points of a line: the newest at the right edge, scaled to the trail's own range. */
function trailPoints(values) {
  if (values.length < 2) return "";
  const low = Math.min(...values);
  const span = Math.max(...values) - low;
  const left = TRAIL_POINTS - values.length;
  return values
    .map((value, number) => {
      const x = ((left + number) * WIDTH) / (TRAIL_POINTS - 1);
      const y = span === 0 ? HEIGHT / 2 : HEIGHT - 2 - ((value - low) * (HEIGHT - 4)) / span;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(" ");
}

async function askForPrices() {
  const answer = await ask(`/prices?assets=${[...cards.keys()].join(",")}`);
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const rows = {};
  for (const price of (await answer.json()).prices) {
    if (price.error) continue; // no fresh price: the old one stays, and grows older
    rows[`price/${price.asset}`] = { ...price, at: performance.now() - price.age_ms };
  }
  return rows;
}

const WORDS = {
  live: "Live",
  asking: "Live, asking every 2 s",
  lost: "Connection lost, trying again",
};

watch("/live/prices", {
  onRows(rows, gone) {
    for (const [name, row] of Object.entries(rows)) {
      const [kind, key] = name.split("/");
      if (kind === "price") showPrice(key, row);
      else if (kind === "exchange") showExchange(key, row);
      else showHeadline(row);
    }
    for (const name of gone) if (name.startsWith("exchange/")) forgetExchange(name.slice(9));
    growOlder();
  },
  onState(state) {
    if (line.dataset.connection === state) return; // a screen reader is told of changes only
    line.dataset.connection = state;
    line.textContent = WORDS[state];
  },
  ask: cards.size ? askForPrices : null,
});

growOlder();
setInterval(growOlder, 250);
setInterval(growTrails, 1_000);
