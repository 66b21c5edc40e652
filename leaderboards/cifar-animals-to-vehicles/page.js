"use strict";
(() => {
  const root = document.documentElement;
  // A page opened from disk may be refused storage: then the theme is the system's again on the next page.
  const kept = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (v) => { try { localStorage.setItem("theme", v); } catch { /* not kept */ } } };
  if (kept.get()) root.dataset.theme = kept.get();
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.getElementById("theme")?.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept.set(root.dataset.theme);
  });

  // Tooltips: whatever has data-tip says it on hover and on focus.
  const tip = document.getElementById("tip");
  const show = (of) => {
    tip.textContent = of.dataset.tip;
    tip.hidden = false;
    const box = of.getBoundingClientRect();
    const left = Math.min(box.left + scrollX, scrollX + root.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${box.bottom + scrollY + 6}px`;
  };
  for (const of of document.querySelectorAll("[data-tip]")) {
    of.addEventListener("mouseenter", () => show(of));
    of.addEventListener("focus", () => show(of));
    of.addEventListener("mouseleave", () => { tip.hidden = true; });
    of.addEventListener("blur", () => { tip.hidden = true; });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // The table over seeds: a click opens the seeds of a row; headings sort rows together with their seeds.
  const methods = document.getElementById("methods");
  const unfold = (body, open) => {
    body.querySelector("button.open").setAttribute("aria-expanded", String(open));
    for (const row of body.querySelectorAll("tr.seed")) row.hidden = !open;
  };
  if (methods) {
    for (const button of methods.querySelectorAll("button.open")) {
      button.addEventListener("click", () =>
        unfold(button.closest("tbody"), button.getAttribute("aria-expanded") !== "true"));
    }
    const bodies = [...methods.tBodies];
    const columns = [...methods.tHead.rows[0].cells];
    columns.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
      const ranks = head.dataset.column === "rank";
      const text = head.classList.contains("text");
      const before = head.getAttribute("aria-sort");
      const down = before === "none" ? !(text || ranks) : before === "ascending";
      const key = (body) => {
        const cell = body.rows[0].cells[place].dataset.k;
        return cell === "" ? null : text ? cell : parseFloat(cell);
      };
      const order = bodies.map((body, at) => [key(body), at]);
      order.sort(([x, a], [y, b]) => {
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        const by = x < y ? -1 : x > y ? 1 : 0;
        return (down ? -by : by) || a - b;
      });
      methods.append(...order.map(([, at]) => bodies[at]));
      columns.forEach((one) => one.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    }));
  }

  // A link to a row opens what it is in.
  const follow = () => {
    let id = location.hash.slice(1);
    // A hash that is no encoded text (`#50%`) leads nowhere, and must not end this script.
    try { id = decodeURIComponent(id); } catch { /* as it is */ }
    const target = document.getElementById(id);
    if (!target) return;
    const folded = target.closest("details");
    if (folded) folded.open = true;
    if (target.closest("#methods")) unfold(target, true);
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  follow();

  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const number = (text) => (text === "" ? null : Number(text));
  const keys = rows.map((row) => [...row.cells].map((cell, place) =>
    heads[place].classList.contains("text") ? cell.dataset.k : number(cell.dataset.k)));
  const order = rows.map((_, place) => place);

  const rank = heads.findIndex((head) => head.dataset.column === "rank");
  const group = (place) => `${rows[place].dataset.group}:${keys[place][rank]}`;
  const mark = (sortedByRank) => {
    let before = null;
    for (const place of order) {
      const row = rows[place];
      if (row.classList.contains("hidden")) { row.classList.remove("new-rank"); continue; }
      row.classList.toggle("new-rank", sortedByRank && before !== null && group(place) !== before);
      before = group(place);
    }
  };
  let sorted = { place: rank, down: false };
  const sort = (place, down) => {
    const text = heads[place].classList.contains("text");
    order.sort((a, b) => {
      const [x, y] = [keys[a][place], keys[b][place]];
      // What was not measured comes last, whichever way.
      if (x === null || x === "" || y === null || y === "") {
        const missing = (v) => v === null || v === "";
        return missing(x) - missing(y) || a - b;
      }
      const by = text ? (x < y ? -1 : x > y ? 1 : 0) : x - y;
      return (down ? -by : by) || a - b;
    });
    body.append(...order.map((at) => rows[at]));
    heads.forEach((head, at) => head.setAttribute("aria-sort", at !== place ? "none" : down ? "descending" : "ascending"));
    sorted = { place, down };
    mark(place === rank);
  };
  heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const text = head.classList.contains("text") || place === rank;
    sort(place, sorted.place === place ? !sorted.down : !text);
  }));

  const filters = [...document.querySelectorAll("select[data-column]")];
  const norm = document.getElementById("norm");
  const search = document.getElementById("search");
  const count = document.getElementById("victim-count");
  const at = Object.fromEntries(heads.map((head, place) => [head.dataset.column, place]));
  const apply = () => {
    const wanted = search.value.toLowerCase();
    let left = 0;
    rows.forEach((row, place) => {
      const fits = filters.every((one) => !one.value || row.cells[at[one.dataset.column]].dataset.k === one.value)
        && (!norm.value || row.dataset.norms.split(" ").includes(norm.value))
        && (!wanted || row.dataset.find.includes(wanted));
      row.classList.toggle("hidden", !fits);
      left += fits;
    });
    for (const one of ["Linf", "L2", "L1"]) table.classList.toggle(`no-${one}`, Boolean(norm.value) && norm.value !== one);
    count.textContent = `${left} of ${rows.length} victims`;
    mark(sorted.place === rank);
  };
  for (const one of [...filters, norm]) one.addEventListener("change", apply);
  search.addEventListener("input", apply);
  for (const box of document.querySelectorAll("input[data-group]")) {
    const toggle = () => table.classList.toggle(`no-${box.dataset.group}`, !box.checked);
    box.addEventListener("change", toggle);
    toggle();
  }
  document.getElementById("reset").addEventListener("click", () => {
    for (const one of [...filters, norm, search]) one.value = "";
    apply();
    sort(rank, false);
  });
  apply();
})();
