"use strict";
// Bluffscope: a table over a folder of runs. Lines come from this server alone; texts only ever become text nodes.
(() => {
  const byId = (id) => document.getElementById(id);
  const AT_ONCE = 300;
  const SILENT = 5; // seconds
  const missing = (value) => value === null || value === undefined;
  const unique = (values) => [...new Set(values)];

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") node.addEventListener("click", value);
      else if (!missing(value)) node.setAttribute(name, value);
    }
    for (const child of children) if (!missing(child)) node.append(child);
    return node;
  }
  const second = (text, title) => (text ? el("span", { class: "second", title }, text) : null);
  const fixed = (value) => value.toFixed(2);
  const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  function duration(seconds) {
    const whole = Math.round(seconds);
    const [minutes, hours] = [Math.floor(whole / 60), Math.floor(whole / 3600)];
    const parts = whole < 60 ? [whole, "s"] : whole < 3600 ? [minutes, "min", whole % 60, "s"] : [hours, "h", minutes % 60, "min"];
    return parts.join("\u00a0"); // on one line
  }
  function size(bytes) {
    if (bytes < 1000) return `${bytes} B`;
    const names = ["kB", "MB", "GB", "TB"];
    const place = Math.min(names.length - 1, Math.floor(Math.log10(bytes) / 3) - 1);
    return `${(bytes / 1000 ** (place + 1)).toFixed(1)} ${names[place]}`;
  }
  const speed = (rate) => (rate >= 100 ? Math.round(rate).toLocaleString("en") : String(Number(rate.toPrecision(2))));
  function dateCell({ date: iso }) {
    const date = new Date(iso);
    if (!iso || Number.isNaN(date.getTime())) return [];
    const two = (number) => String(number).padStart(2, "0");
    const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
    return [day, second(`${two(date.getHours())}:${two(date.getMinutes())}`)];
  }
  // Long names break after their signs, not inside a word.
  const broken = (text) => text.split(/(?<=[-_./])/).flatMap((part, place) => (place ? [el("wbr"), part] : [part]));

  // ---- columns: how each is sorted and shown
  const COLUMNS = [
    { id: "name", title: "Run", value: (row) => row.name.toLowerCase() },
    { id: "state", title: "State", value: (row) => ["running", "reading", "stopped", "unreadable", "finished"].indexOf(row.state), cell: stateCell },
    { id: "model", title: "Model", value: (row) => row.model, cell: (row) => broken(row.model || "") },
    { id: "data", title: "Data", value: (row) => row.data, cell: (row) => broken(row.data || "") },
    { id: "n", title: "n", down: true, value: (row) => row.n, cell: (row) => (missing(row.n) ? [] : [row.n.toLocaleString("en"), second(row.items)]) },
    { id: "health", title: "Health", value: (row) => row.health, cell: healthCell },
    { id: "effect", title: "Strongest effect", down: true, value: (row) => (row.effects.length ? Math.max(...row.effects.map((effect) => Math.abs(effect.value))) : null), cell: effectCell },
    { id: "detector", title: "Detector", down: true, value: (row) => (row.detectors.length ? Math.max(...row.detectors.map((area) => area.auroc)) : null), cell: detectorCell },
    { id: "date", title: "Date", down: true, value: (row) => row.date, cell: dateCell },
  ];
  const NEWEST = "-date";

  function stateCell(row) {
    const parts = [el("span", { class: `badge ${row.state}` }, row.state)];
    const how = row.progress;
    if (how) {
      if (how.total) {
        parts.push(el("progress", { max: how.total, value: how.done, "aria-label": `measured of ${row.name}` }));
        parts.push(second(`${how.done.toLocaleString("en")} of ${how.total.toLocaleString("en")} (${Math.floor((100 * how.done) / how.total)}\u00a0%)`));
      } else if (how.done) parts.push(second(`${counted(how.done, "question")} answered`));
      const pace = [how.rate && `${speed(how.rate)}\u00a0a\u00a0second`, how.eta >= 1 && `${duration(how.eta)}\u00a0left`];
      parts.push(second(row.state === "running" ? [how.stage, ...pace].filter(Boolean).join(", ") : `while ${how.stage}`));
      // Nobody is seen to hold its lock: it may be another machine's, or have been killed.
      if (row.state === "running" && !how.seen && how.sign >= SILENT) parts.push(second(`no sign of life for ${duration(how.sign)}`));
    }
    if (row.problem) parts.push(second(row.problem));
    return parts;
  }
  function healthCell(row) {
    if (!row.health) return [];
    return [row.sound === false ? el("span", { class: "badge failed" }, row.health) : row.health];
  }
  const of = (part) => (part.of ? `${part.of}: ` : null);
  function effectCell(row) {
    if (row.said) return [row.said];
    return row.effects.flatMap((effect) => {
      const nothing = effect.of && effect.verdict !== "separates";
      const title = `${effect.metric}: ${effect.words}, ${effect.text}, ${effect.verdict}`;
      const first = el("span", { class: "apart", title }, of(effect), nothing ? "nothing separates" : effect.words);
      return nothing ? [first] : [first, second(effect.text), effect.of ? null : el("span", { class: `badge ${effect.verdict}` }, effect.verdict)];
    });
  }
  function detectorCell(row) {
    const cells = row.detectors.flatMap((area) => {
      const ends = missing(area.lo) || missing(area.hi) ? null : `${fixed(area.lo)} to ${fixed(area.hi)}`;
      return [el("span", { class: "apart" }, of(area), `AUROC ${fixed(area.auroc)}`), second(ends)];
    });
    return [...cells, second(unique(row.detectors.map((area) => area.detector)).join(", "))];
  }
  const report = (row) => row.files.find(([name]) => name === "report.html");
  function nameCell(row) {
    const name = el("bdi", {}, ...broken(row.name));
    const open = report(row) ? el("a", { href: `${row.href}/report.html` }, name) : name;
    const files = row.files.length
      ? el("button", { type: "button", class: "open", "aria-label": `files of ${row.name}`, "aria-haspopup": "dialog", onclick: () => choose({ run: row.href }) }, "files")
      : null;
    const kind = row.kind === "run" ? null : `${row.kind}  `;
    return el("th", { scope: "row" }, open, el("span", { class: "second" }, kind, files));
  }

  // ---- what is chosen stands in the address
  let listing = { rows: [], pending: 0, whole: true };
  let all = false;
  const chosen = () => {
    const given = new URLSearchParams(location.search);
    const value = (name) => given.get(name) || "";
    const sort = value("sort");
    const known = COLUMNS.some((column) => column.id === sort.replace(/^-/, ""));
    return { q: value("q"), state: value("state"), kind: value("kind"), sort: known ? sort : NEWEST, run: value("run") };
  };
  function choose(change) {
    const wanted = { ...chosen(), ...change };
    if (wanted.sort === NEWEST) wanted.sort = "";
    const kept = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
    const address = `${location.pathname}${kept.size ? `?${kept}` : ""}`;
    if ("run" in change) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    show();
  }

  const textOf = (row) =>
    [row.name, row.kind, row.state, row.model, row.data, row.health, row.problem, row.said, ...row.effects.flatMap((effect) => [effect.words, effect.metric, effect.verdict]), ...row.detectors.map((area) => area.detector)]
      .filter(Boolean)
      .join(" ")
      .toLowerCase();
  function picked(how) {
    const words = how.q.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = listing.rows.filter((row) => {
      const kind = row.kind === "answers" ? "study" : row.kind;
      if ((how.state && row.state !== how.state) || (how.kind && kind !== how.kind)) return false;
      const text = words.length ? textOf(row) : "";
      return words.every((word) => text.includes(word));
    });
    const down = how.sort.startsWith("-");
    const { value } = COLUMNS.find((column) => column.id === how.sort.replace(/^-/, ""));
    const empty = (row) => missing(value(row)) || value(row) === "";
    return rows.sort((a, b) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b); // what has no value comes last, either way
      const order = value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
      return down ? -order : order;
    });
  }

  function heads(how) {
    const sorted = how.sort.replace(/^-/, "");
    byId("heads").replaceChildren(
      ...COLUMNS.map((column) => {
        const here = column.id === sorted;
        const down = how.sort.startsWith("-");
        const next = here ? (down ? column.id : `-${column.id}`) : `${column.down ? "-" : ""}${column.id}`;
        const mark = here ? (down ? " ▾" : " ▴") : "";
        const button = el("button", { type: "button", "data-focus": `sort ${column.id}`, onclick: () => choose({ sort: next }) }, column.title, mark);
        return el("th", { scope: "col", "aria-sort": here ? (down ? "descending" : "ascending") : null }, button);
      }),
    );
  }
  function line(row) {
    const cells = COLUMNS.slice(1).map((column) => {
      const parts = column.cell(row).filter((part) => !missing(part) && part !== "");
      return el("td", { class: column.id, "data-label": column.title }, parts.length ? el("div", {}, ...parts) : null);
    });
    return el("tr", {}, nameCell(row), ...cells);
  }

  // The table is written anew; whoever stood on something in it stands on it again.
  function keepingFocus(write) {
    const place = (node) => node && (node.dataset.focus || node.getAttribute("aria-label") || node.getAttribute("href"));
    const table = byId("table");
    const stood = table.contains(document.activeElement) ? place(document.activeElement) : null;
    write();
    if (stood) [...table.querySelectorAll("a, button")].find((node) => place(node) === stood)?.focus();
  }

  function show() {
    const how = chosen();
    if (document.activeElement !== byId("search")) byId("search").value = how.q;
    byId("state").value = how.state;
    byId("kind").value = how.kind;
    byId("sort").value = how.sort;
    const rows = picked(how);
    const shown = all ? rows : rows.slice(0, AT_ONCE);
    keepingFocus(() => {
      heads(how);
      byId("rows").replaceChildren(...shown.map(line));
    });
    const total = listing.rows.length;
    byId("found").textContent = rows.length === total ? "" : `${rows.length.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    byId("more").hidden = shown.length === rows.length;
    byId("more").textContent = `Show all ${rows.length.toLocaleString("en")}`;
    about();
    story(how.run);
  }
  function about() {
    const { rows, pending, whole } = listing;
    const number = (test) => rows.filter(test).length;
    const nouns = { detector: "detector", comparison: "comparison", transfer: "transfer", lint: "linter report" };
    const parts = [counted(number((row) => !nouns[row.kind]), "run")];
    for (const [kind, noun] of Object.entries(nouns)) if (number((row) => row.kind === kind)) parts.push(counted(number((row) => row.kind === kind), noun));
    const running = number((row) => row.state === "running");
    if (running) parts.push(`${running} running`);
    if (pending) parts.push(`${pending} still to be read`);
    if (!whole) parts.push("not all folders were looked into: give a smaller one");
    byId("about").textContent = rows.length ? parts.join(", ") : "No run, study, detector or comparison lies in this folder.";
  }

  // ---- one folder's files, and how far it is
  let opened = "";
  function story(href) {
    const dialog = byId("files");
    const row = href && listing.rows.find((one) => one.href === href);
    if (!row) {
      dialog.close();
      return;
    }
    if (opened === href && !dialog.open) return; // it is just being closed
    byId("files-title").textContent = row.name;
    const files = row.files.map(([name, bytes]) =>
      el("tr", {}, el("td", {}, el("a", { href: `${row.href}/${name.split("/").map(encodeURIComponent).join("/")}` }, name)), el("td", {}, size(bytes))),
    );
    const log = row.messages.length ? [el("h3", {}, "Last messages"), el("ul", { class: "log" }, ...row.messages.map((text) => el("li", {}, text)))] : [];
    const held = document.activeElement && document.activeElement.getAttribute("href");
    byId("files-body").replaceChildren(
      el("div", {}, ...stateCell(row)),
      ...log,
      el("table", { class: "files" }, el("caption", {}, "Files"), el("tbody", {}, ...files)),
    );
    if (opened !== href) {
      dialog.showModal();
      opened = href;
    } else if (held) [...dialog.querySelectorAll("a")].find((node) => node.getAttribute("href") === held)?.focus();
  }
  byId("files").addEventListener("close", () => {
    opened = "";
    if (chosen().run) choose({ run: "" });
  });

  // ---- the server is asked again: at once while something is still to be read
  let before = "";
  let timer = 0;
  async function ask() {
    clearTimeout(timer);
    let wait = 5000;
    try {
      const answer = await fetch("rows.json");
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (text !== before) {
        before = text;
        listing = JSON.parse(text);
        show();
      }
      byId("banner").hidden = true;
      wait = listing.pending ? 50 : 2000;
      document.documentElement.dataset.drawn = String(!listing.pending);
    } catch {
      byId("banner").hidden = false;
      byId("banner").textContent = "The server does not answer: this is what was there before. Start bluffscope view again.";
    }
    timer = setTimeout(() => (document.hidden ? null : ask()), wait);
  }
  document.addEventListener("visibilitychange", () => document.hidden || ask());

  // ---- controls
  byId("sort").append(
    ...COLUMNS.flatMap(({ id, title, down }) => {
      const up = down ? "lowest first" : "A to Z";
      const other = down ? "highest first" : "Z to A";
      const words = id === "date" ? ["oldest first", "newest first"] : id === "state" ? ["running first", "finished first"] : [up, other];
      return [el("option", { value: id }, `${title}, ${words[0]}`), el("option", { value: `-${id}` }, `${title}, ${words[1]}`)];
    }),
  );
  byId("search").addEventListener("input", () => choose({ q: byId("search").value }));
  for (const id of ["state", "kind", "sort"]) byId(id).addEventListener("change", () => choose({ [id]: byId(id).value }));
  byId("more").addEventListener("click", () => { all = true; show(); });
  window.addEventListener("popstate", show);
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
    if (event.key === "/" && !typing && !byId("files").open) { event.preventDefault(); byId("search").focus(); }
  });
  const theme = byId("theme");
  const darkNow = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const say = () => theme.setAttribute("aria-pressed", String(darkNow()));
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = darkNow() ? "light" : "dark"; say(); });
  say();
  ask();
})();
