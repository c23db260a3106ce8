  // ---- theme: that of the system, until somebody chooses
  function theme() {
    const chosenTheme = document.documentElement.dataset.theme;
    const dark = chosenTheme ? chosenTheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    byId("theme").setAttribute("aria-pressed", String(dark));
    return dark;
  }

  async function copy(button) {
    const code = button.previousElementSibling;
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let done = document.execCommand("copy");
    if (!done && navigator.clipboard) done = await navigator.clipboard.writeText(code.textContent).then(() => true, () => false);
    button.textContent = done ? "Copied" : "Selected";
  }

  // A table of many buttons is one stop of the keyboard; the arrow keys go from one to the next.
  function roving(home, lines) {
    const reach = (chosen) => lines.flat().forEach((one) => { one.tabIndex = one === chosen ? 0 : -1; });
    if (!lines.length) return;
    reach(lines[0][0]);
    home.addEventListener("focusin", (event) => { if (lines.flat().includes(event.target)) reach(event.target); });
    home.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const at = lines.findIndex((line) => line.includes(event.target));
      if (!step || at < 0) return;
      event.preventDefault();
      const line = lines[at + step[0]] || lines[at];
      line[Math.min(Math.max(0, lines[at].indexOf(event.target) + step[1]), line.length - 1)].focus();
    });
  }

  // ---- start
  for (const select of document.querySelectorAll("[data-choose]")) {
    fill(select, lists[select.dataset.from], firsts[select.dataset.from], select.dataset.from);
    select.addEventListener("change", () => select.dataset.choose.split(" ").forEach((name) => charts[name]()));
  }
  if (byId("forest-order")) byId("forest-order").addEventListener("change", () => charts.forest());
  fill(byId("pair-scope"), ["pooled", ...lists.scopes.filter((scope) => scope !== "pooled" && everything.some(ofScope(scope)))], "pooled");
  byId("pair-side").replaceChildren(...SIDES.map(([value, label]) => el("option", { value }, label)));
  if (byId("pair-metric")) fill(byId("pair-metric"), lists.metrics, data.first, "metrics");
  const changed = (key) => () => {
    Object.assign(list, { page: 0, ...(key ? { key: "", down: true } : {}) });
    find();
    remember();
  };
  const turn = (by) => () => { list.page += by; rows(); remember(); };
  byId("search").addEventListener("input", changed(false));
  for (const id of ["pair-scope", "pair-side"]) byId(id).addEventListener("change", changed(false));
  if (byId("pair-metric")) byId("pair-metric").addEventListener("change", changed(true));
  byId("previous").addEventListener("click", turn(-1));
  byId("next").addEventListener("click", turn(1));
  for (const cell of document.querySelectorAll("[data-stat]")) cell.addEventListener("click", () => openStat(Number(cell.dataset.stat)));
  for (const home of document.querySelectorAll("table.verdicts, table.features"))
    roving(home, [...home.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button, summary, a")]).filter((line) => line.length));
  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", () => copy(button));
  byId("story").addEventListener("click", (event) => { if (event.target === byId("story")) byId("story").close(); });
  // Whoever closes a story is back at the list, with its choices.
  byId("story").addEventListener("close", () => { if (/^#(pair|text|feature)\//.test(location.hash)) remember(); });
  window.addEventListener("hashchange", route);
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() ? "light" : "dark";
    theme();
  });
  theme();
  if (pairs.cut) say("cut-note", `Texts longer than ${pairs.cut.toLocaleString("en")} characters are cut here; ${words.items}.parquet has all of them.`);
  find();
  route();
  for (const name of Object.keys(charts)) {
    if (byId(name)) await charts[name]();
    await new Promise((resolve) => setTimeout(resolve)); // let the page answer between two charts
  }
  document.documentElement.dataset.drawn = "true";
