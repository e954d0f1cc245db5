// The live part of the command centre. Cells name what they show: data-feed or data-asset, and data-field.
"use strict";

(() => {
  const REFRESH_MS = 2_000;
  const USAGE_MS = 15_000; // figures of usage are read from the disk and the database: no socket tells them
  const MOST_LISTINGS = 200; // as in consumers.py
  const liveModule = new URL("live.js", document.currentScript.src);

  document.addEventListener("DOMContentLoaded", async () => {
    const sidebar = document.querySelector("#nav-sidebar");
    if (!sidebar && !document.querySelector("[data-feed]")) return; // nobody is signed in here
    const { ageText, watch } = await import(liveModule);

    const known = new Map();
    let ttl = Infinity;
    const refreshNeeds = sparingly(() => renew(location.href, ["[data-list]", "#nav-sidebar-apps a[href]"]));
    const refusals = document.querySelector("[data-refusals]");
    const refreshRefusals = sparingly(() => renew("../refusals/", ["[data-refusals]"]));

    for (const cell of document.querySelectorAll("[data-age-ms]")) {
      if (cell.dataset.ageMs) setAge(cell, performance.now() - Number(cell.dataset.ageMs));
    }
    watch("/admin/live/feeds", { onRows: showFeeds });
    const listings = namedListings();
    if (listings.length) {
      watch(`/admin/live/listings?${new URLSearchParams({ of: listings.join(",") })}`, { onRows: showListings });
    }
    setInterval(growOlder, 500);
    if (document.querySelector("[data-list=usage]")) setInterval(refreshNeeds, USAGE_MS);

    function showFeeds(rows, gone, full) {
      let news = false;
      for (const [name, row] of Object.entries(rows)) {
        const before = known.get(name);
        if (before || !full) news ||= needsLook(before, row);
        known.set(name, row);
        if (name.startsWith("feed/")) showFeed(name.slice(5), row);
        if (name.startsWith("figure/")) showFigure(name.slice(7), row);
      }
      for (const name of gone) known.delete(name);
      if (news || gone.length) refreshNeeds();
    }

    /** What the list of needs and the badge in the sidebar are made of. */
    function needsLook(before, row) {
      const parts = ["state", "detail", "refused", "stuck", "troubles", "reporting"];
      return !before || parts.some((part) => String(before[part]) !== String(row[part]));
    }

    function showFigure(key, row) {
      if (key === "feeds_live" && !sidebarSays(row.text)) refreshNeeds();
      for (const figure of document.querySelectorAll(`[data-kpi="${CSS.escape(key)}"]`)) {
        if (row.text) figure.textContent = row.text;
        else setAge(figure, row.at);
      }
      for (const note of document.querySelectorAll(`[data-kpi-note="${CSS.escape(key)}"]`)) {
        note.textContent = row.note;
      }
    }

    /** Whether the sidebar's badge counts what is live as the feeds do; where there is none, nothing is wrong. */
    function sidebarSays(text) {
      const counted = sidebar?.textContent.match(/\d+\/\d+/)?.[0];
      return !counted || counted === text.replaceAll(" ", "");
    }

    function showFeed(name, row) {
      for (const cell of document.querySelectorAll(`[data-feed="${CSS.escape(name)}"]`)) {
        const { field } = cell.dataset;
        if (field === "state") showState(cell, row);
        else if (field === "last_tick_age_ms") setAge(cell, row.at);
        else if (field in row) cell.textContent = asText(row[field]);
      }
      if (refusals?.dataset.refusals === name) {
        const counts = [row.refused_ticks, row.refused, row.stuck].join();
        if (refusals.dataset.shown !== counts) refreshRefusals();
      }
    }

    function showState(badge, row) {
      if (badge.textContent !== row.state) {
        badge.className = `tb-badge tb-${row.state}`;
        badge.textContent = row.state;
        refreshNeeds();
      }
      badge.title = row.detail;
    }

    function showListings(rows) {
      for (const [name, row] of Object.entries(rows)) {
        if (name === "node") {
          ttl = row.ttl_ms;
          continue;
        }
        const [asset, exchange] = name.split("@").map((part) => CSS.escape(part));
        for (const cell of document.querySelectorAll(`[data-asset="${asset}"][data-exchange="${exchange}"]`)) {
          if (cell.dataset.field === "price") cell.textContent = row.price;
          else setAge(cell, row.at);
          cell.dataset.at = row.at;
        }
      }
      growOlder();
    }

    function namedListings() {
      const cells = document.querySelectorAll("[data-asset][data-exchange]");
      const names = new Set([...cells].map(({ dataset }) => `${dataset.asset}@${dataset.exchange}`));
      return [...names].slice(0, MOST_LISTINGS);
    }

    function setAge(cell, at) {
      if (at === undefined) {
        delete cell.dataset.since;
        cell.textContent = "–";
      } else {
        cell.dataset.since = at;
        cell.textContent = ageText(performance.now() - at);
      }
    }

    function growOlder() {
      const now = performance.now();
      for (const cell of document.querySelectorAll("[data-since]")) {
        cell.textContent = ageText(now - Number(cell.dataset.since));
      }
      for (const cell of document.querySelectorAll("[data-at]")) {
        const fresh = now - Number(cell.dataset.at) <= ttl;
        cell.classList.remove("tb-none");
        cell.classList.toggle("tb-fresh", fresh);
        cell.classList.toggle("tb-stale", !fresh);
      }
    }

    function asText(value) {
      return typeof value === "number" ? value.toLocaleString("en-US") : value;
    }

    /** Take parts of the page anew from the server. */
    async function renew(address, selectors) {
      const answer = await fetch(address, { cache: "no-store", redirect: "error" });
      if (!answer.ok) return;
      const made = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const selector of selectors) replaceAll(selector, made);
    }

    function replaceAll(selector, page) {
      const shown = document.querySelectorAll(selector);
      const made = page.querySelectorAll(selector);
      if (shown.length !== made.length) return; // another page: a form that answered with errors, perhaps
      shown.forEach((element, number) => {
        Object.assign(element.dataset, made[number].dataset);
        if (element.innerHTML !== made[number].innerHTML) element.replaceChildren(...made[number].childNodes);
      });
    }
  });

  /** Wrap an action: it is done soon after it was asked for, while the page is seen, and not too often. */
  function sparingly(act) {
    let timer = 0;
    let before = -Infinity;
    const attempt = async () => {
      if (document.hidden) {
        document.addEventListener("visibilitychange", attempt, { once: true });
        return;
      }
      before = performance.now();
      try {
        await act();
      } catch {
        // the node is away or the session is over: what is shown stays, and the ages say how old it is
      }
      timer = 0;
    };
    return () => {
      timer ||= setTimeout(attempt, Math.max(0, before + REFRESH_MS - performance.now()));
    };
  }
})();
