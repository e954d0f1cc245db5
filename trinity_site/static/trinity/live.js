// A WebSocket that comes back by itself, and ages that grow honestly whatever the network does.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const SILENCE_MS = 25_000; // the server says something at least every 10 s
const ASK_AFTER_FAILURES = 2;
const ASK_EVERY_MS = 2_000;
const SIGN_IN_AGAIN = 4000; // the server ends a session's socket to look at the session anew

/**
 * Watch a broadcast: `onRows(rows, gone, full)` with ages as moments of performance.now().
 * `onState("live" | "asking" | "lost")` says where the rows come from; `ask` fetches them while the socket is away.
 */
export function watch(path, { onRows, onState = () => {}, ask = null }) {
  let failures = 0;
  let silence = 0;
  let asking = 0;

  const connect = () => {
    const socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => socket.close(), SILENCE_MS);
    };
    socket.addEventListener("open", listen);
    socket.addEventListener("message", (event) => {
      listen();
      failures = 0;
      stopAsking();
      const { full, now_ms, rows, gone } = JSON.parse(event.data);
      const offset = performance.now() - now_ms;
      for (const row of Object.values(rows)) if (row.at_ms != null) row.at = row.at_ms + offset;
      onRows(rows, gone, full);
      onState("live");
    });
    socket.addEventListener("close", (event) => {
      clearTimeout(silence);
      if (event.code === SIGN_IN_AGAIN) return connect();
      failures += 1;
      if (ask && failures >= ASK_AFTER_FAILURES) startAsking();
      else if (!asking) onState("lost");
      const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (failures - 1));
      setTimeout(connect, wait * (0.5 + Math.random() / 2));
    });
  };

  const startAsking = () => {
    if (asking) return;
    asking = setInterval(askOnce, ASK_EVERY_MS);
    askOnce();
  };
  const stopAsking = () => {
    clearInterval(asking);
    asking = 0;
  };
  const askOnce = async () => {
    try {
      const rows = await ask();
      if (!asking) return; // the socket came back meanwhile
      onRows(rows, [], false);
      onState("asking");
    } catch {
      onState("lost"); // no answer: what is shown grows older, and says so
    }
  };

  connect();
}

/** Write an age as people say it: 42 ms, 3 s, 5 min. */
export function ageText(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.floor(ms))} ms`;
  if (ms < 60_000) return `${Math.floor(ms / 1_000)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min`;
  if (ms < 86_400_000) return `${Math.floor(ms / 3_600_000)} h`;
  return `${Math.floor(ms / 86_400_000)} d`;
}

/** Write a price's own digits with thousands apart; no digit is added, rounded or lost. */
export function priceText(digits) {
  const [whole, fraction] = digits.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? grouped : `${grouped}.${fraction}`;
}
