// The live part of the command centre. Cells name what they show: data-feed or data-asset, and data-field.
"use strict";

(() => {
  const REFRESH_MS = 5_000;
  const MOST_LISTINGS = 200; // as in consumers.py
  const liveModule = new URL("live.js", document.currentScript.src);

  document.addEventListener("DOMContentLoaded", async () => {
    const sidebar = document.querySelector("#nav-sidebar");
    if (!sidebar && !document.querySelector("[data-feed]")) return; // nobody is signed in here
    const { ageText, priceText, watch } = await import(liveModule);

    watch("/admin/live/feeds", { onRows: showFeeds });
    const listings = namedListings();
    if (listings.length) {
      watch(`/admin/live/listings?${new URLSearchParams({ of: listings.join(",") })}`, { onRows: showListings });
    }
    setInterval(growOlder, 500);
    if (document.querySelector("[data-page=dashboard]")) setInterval(refreshFigures, REFRESH_MS);

    const known = new Map();
    let ttl = Infinity;

    function showFeeds(rows, gone, full) {
      let news = false;
      for (const [name, row] of Object.entries(rows)) {
        const before = known.get(name);
        if (before || !full) news ||= needsLook(before, row);
        known.set(name, row);
        if (name.startsWith("feed/")) showFeed(name.slice(5), row);
      }
      for (const name of gone) known.delete(name);
      if (news || gone.length) refreshFigures();
    }

    /** What the list of needs and the badge in the sidebar are made of. */
    function needsLook(before, row) {
      const parts = ["state", "detail", "refused", "stuck", "reporting"];
      return !before || parts.some((part) => before[part] !== row[part]);
    }

    function showFeed(name, row) {
      for (const cell of document.querySelectorAll(`[data-feed="${CSS.escape(name)}"]`)) {
        const { field } = cell.dataset;
        if (field === "state") showState(cell, row);
        else if (field === "last_tick_age_ms") setAge(cell, row.at);
        else if (field in row) cell.textContent = asText(row[field]);
      }
    }

    function showState(badge, row) {
      if (badge.textContent !== row.state) {
        badge.className = `tb-badge tb-${row.state}`;
        badge.textContent = row.state;
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

    /** Take the figures, the list of needs and the sidebar's badges from this page as the server makes it now. */
    async function refreshFigures() {
      if (document.hidden || refreshFigures.busy) return;
      refreshFigures.busy = true;
      try {
        const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
        if (!answer.ok) return;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const selector of ["[data-kpi]", "[data-kpi-note]", "[data-list]"]) replaceAll(selector, fresh);
        replaceAll("#nav-sidebar-apps a[href]", fresh);
      } catch {
        // the node is away or the session is over: what is shown stays, and the ages say how old it is
      } finally {
        refreshFigures.busy = false;
      }
    }

    function replaceAll(selector, fresh) {
      const shown = document.querySelectorAll(selector);
      const made = fresh.querySelectorAll(selector);
      if (shown.length !== made.length) return; // another page: a form that answered with errors, perhaps
      shown.forEach((element, number) => {
        if (element.innerHTML !== made[number].innerHTML) element.replaceChildren(...made[number].childNodes);
      });
    }
  });
})();
