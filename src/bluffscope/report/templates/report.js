  // The data are deflated: a third of their size, and the browser has what it takes to inflate them.
  const inflated = new Blob([Uint8Array.from(atob(document.getElementById("data").textContent), (one) => one.charCodeAt(0))])
    .stream().pipeThrough(new DecompressionStream("deflate"));
  const data = await new Response(inflated).json();
  // Texts that repeat in a table come once each, with their places.
  for (const table of [data.stats, data.ladder]) {
    for (const [name, column] of Object.entries(table)) if (column.texts) table[name] = column.at.map((place) => column.texts[place]);
  }
  // A pair has a text of both sides, fact and hallucination; a labelled text is of one side, true or false.
  const { pairs, metrics, stats, words } = data;
  const { paired, symbol } = words;
  const count = pairs.id.length;
  const PAGE = 10;
  const byId = (id) => document.getElementById(id);

  // Texts only ever become text nodes: nothing of the data is read as markup.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "onclick") node.addEventListener("click", value);
      else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    for (const child of children) if (child !== null && child !== undefined) node.append(child);
    return node;
  }
  const missing = (value) => value === null || value === undefined;
  function shown(value, signed) {
    if (missing(value)) return "-";
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    const text = size !== 0 && (size >= 1e6 || size < 1e-4) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
    return signed && value > 0 ? "+" + text : text;
  }
  const chance = (value) => (missing(value) ? "-" : value < 0.001 ? value.toExponential(0) : value.toFixed(3));
  const short = (text, most) => (text && text.length > most ? text.slice(0, most).trimEnd() + "…" : text || "");
  const unique = (values) => [...new Set(values)];
  // "0 %" only where it is none, "100 %" only where it is all.
  const percent = (share) => (missing(share) ? "-" : share > 0 && share < 0.005 ? "< 1 %" : share < 1 && share > 0.995 ? "> 99 %" : `${Math.floor(100 * share + 0.5)} %`);
  const metricNamed = new Map(metrics.map((metric) => [metric.name, metric]));

  // ---- rows of the charts: tables arrive column by column
  function rowsOf(table, keep) {
    const names = Object.keys(table);
    const length = names.length ? table[names[0]].length : 0;
    const rows = [];
    for (let i = 0; i < length; i++) {
      const row = {};
      for (const name of names) row[name] = table[name][i];
      if (!keep || keep(row)) rows.push(row);
    }
    return rows;
  }

  const options = { renderer: "svg", actions: false, ast: true, tooltip: { theme: "custom" }, config: { ...data.config, aria: false } };
  // What was drawn: title and numbers in words for those who cannot see it, above the chart where there is a place for it.
  async function draw(id, spec, datasets, clicked, title, summary) {
    const home = typeof id === "string" ? byId(id) : id;
    if (!home) return;
    if (title) {
      say(`${id}-title`, title);
      home.setAttribute("aria-label", [title, summary].filter(Boolean).join(". "));
    }
    // Vega-Lite fits a chart into the width of its place only where its height is a number.
    const height = spec.height.step ? spec.height.step * Math.max(1, unique(datasets.rows.map((row) => row[spec.usermeta.rows])).length) : spec.height;
    // As bluffscope.report.panels.named says: a name that every object has must not be found where Vega looks groups up.
    const rows = datasets.rows.map((row) => ({ ...row, ...Object.fromEntries(data.named.filter((name) => name in row).map((name) => [name, `${row[name]} `])) }));
    // Vega gives the place its description as label.
    const whole = { ...spec, height, description: home.getAttribute("aria-label"), datasets: { ...datasets, rows } };
    const result = await window.vegaEmbed(home, whole, options);
    // The place says what the chart shows; its marks, hundreds of them without a name, are not read out.
    const picture = home.querySelector("svg");
    if (picture) picture.setAttribute("aria-hidden", "true");
    savable(home, whole, datasets.rows, title || home.getAttribute("aria-label") || "chart");
    if (clicked) result.view.addEventListener("click", (_, item) => item && item.datum && clicked(item.datum));
  }
  // ---- each chart can be saved: as a picture on white paper with its title, or its numbers
  function savable(home, spec, rows, title) {
    const below = home.parentElement.classList.contains("scroll") ? home.parentElement : home;
    if (below.nextElementSibling && below.nextElementSibling.classList.contains("save")) below.nextElementSibling.remove();
    if (!rows.length) return;
    const button = (kind) => el("button", { type: "button", onclick: () => save(kind, home, spec, rows, title) }, kind.toUpperCase());
    below.after(el("details", { class: "save" }, el("summary", { "aria-label": `Save: ${short(title, 80)}` }, "Save"), ...["png", "svg", "csv"].map(button)));
  }
  async function save(kind, home, spec, rows, title) {
    const name = `${title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "chart"}.${kind}`;
    if (kind === "csv") return offer(name, new Blob([csv(rows)], { type: "text/csv" }));
    // Vega measures "container" in the document, and this one is never in it.
    const lines = title.match(/.{1,70}(\s|$)/g) || [title.slice(0, 70)];
    const drawn = { ...spec, width: Math.max(300, home.clientWidth - 130), title: { text: lines.map((line) => `${line.trim()} `), anchor: "start", limit: 0 } };
    const result = await window.vegaEmbed(el("div", {}), drawn, { ...options, config: { ...data.config, background: "white" } });
    const content = kind === "svg" ? new Blob([await result.view.toSVG()], { type: "image/svg+xml" }) : await picture(await result.view.toCanvas(2));
    result.finalize();
    return offer(name, content);
  }
  const picture = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  function offer(name, content) {
    const url = URL.createObjectURL(content);
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }
  function csv(rows) {
    const names = unique(rows.flatMap(Object.keys));
    // As bluffscope.table.exports: no cell begins as a spreadsheet's formula does.
    const cell = (value) => {
      if (typeof value !== "string") return missing(value) ? "" : String(value);
      const safe = (/^(\s*[=+\-@]|[\t\r\n])/.test(value) ? `'${value}` : value).replace(/([;\t\r\n][\s"]*)([=+\-@])/g, "$1'$2");
      return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  }
  // Scopes of a further column are named COLUMN=VALUE; domains are named as they are.
  const columnOf = (scope) => (scope.includes("=") ? scope.slice(0, scope.indexOf("=")) : "domain");
  const say = (id, text) => { if (byId(id)) byId(id).textContent = text; };

  // ---- charts: each reads its own choices
  const lists = {
    scopes: data.scopes,
    metrics: metrics.map((metric) => metric.name),
    ladderMetrics: unique(data.ladder.metric || []),
    ladderScopes: unique(data.ladder.scope || []),
    doseScopes: unique(data.dose.scope || []),
    detectorScopes: unique(data.detectors.scope || []),
    transferDetectors: unique(data.transfer.detector || []),
    transferColumns: unique((data.transfer.train || []).map(columnOf)),
    curveDetectors: Object.keys(data.curves),
    carriedDetectors: Object.keys(data.carriedTitles),
  };
  // Lists of detectors, which have names of their own.
  const DETECTORS = ["transferDetectors", "curveDetectors", "carriedDetectors"];
  const firsts = { scopes: "pooled", metrics: data.first, ladderMetrics: data.first, ladderScopes: "pooled", detectorScopes: "pooled", transferDetectors: "sae", curveDetectors: "sae", carriedDetectors: "sae" };
  const chosen = (chart) =>
    [...document.querySelectorAll(`[data-choose~="${chart}"]`)].map((select) => select.value);

  // What a chart shows, for who hears the page: the first and the last of its numbers, in its order.
  function tell(id, title, parts) {
    const home = typeof id === "string" ? byId(id) : id;
    const most = 6;
    if (home) home.setAttribute("aria-label", `${title}: ${[...parts.slice(0, most), ...(parts.length > most ? [`and ${parts.length - most} more`] : [])].join("; ") || "nothing"}.`);
  }

  const MOST_EFFECTS = 60;
  const charts = {
    async spread() {
      const home = byId("spread");
      // All places first: a chart takes its width from the place that the others leave it.
      const panels = unique(data.picture.panel).map((panel) => {
        const rows = rowsOf(data.picture, (row) => row.panel === panel);
        const chart = el("div", { class: "chart", role: "img" });
        tell(chart, `${data.pictured}, ${panel}`, [rows[0].note]);
        return { rows, chart, figure: el("figure", {}, el("figcaption", {}, panel, el("span", {}, rows[0].note)), chart) };
      });
      home.replaceChildren(...panels.map(({ figure }) => figure));
      for (const { rows, chart } of panels) await draw(chart, data.specs.spread, { rows });
    },
    forest() {
      const [scope] = chosen("forest");
      let rows = rowsOf(stats, (row) => row.scope === scope && !missing(row.dz));
      const largest = [...rows].sort((a, b) => Math.abs(b.dz) - Math.abs(a.dz)).slice(0, MOST_EFFECTS);
      const all = rows.length;
      if (byId("forest-order").value === "size") rows = largest;
      else if (all > MOST_EFFECTS) rows = rows.filter((row) => largest.includes(row));
      say("forest-note", !all ? "Nothing to show: no effect size is defined here." : all > MOST_EFFECTS ? `The ${MOST_EFFECTS} largest of ${all}.` : "");
      tell("forest", `Effect sizes, ${scope}`, rows.map((row) => `${row.metric} ${shown(row.dz, true)}, at equal lengths ${shown(row.adj_dz, true)}`));
      return draw("forest", data.specs.forest, { rows });
    },
    async heat() {
      const home = byId("heat");
      home.replaceChildren();
      const layered = metrics.filter((metric) => metric.layer !== null);
      const wanted = new Map(layered.map((metric) => [metric.name, metric]));
      const rows = rowsOf(stats, (row) => wanted.has(row.metric) && !row.scope.includes("="));
      const scopes = unique(rows.map((row) => row.scope));
      const most = 10;
      const kept = new Set([...scopes.filter((scope) => scope !== "pooled").slice(0, most), "pooled"]);
      for (const name of unique(layered.map((metric) => metric.metric))) {
        const chart = el("div", { class: "chart", role: "img", "aria-label": `${symbol} of ${name} by layer and domain` });
        const cells = rows
          .filter((row) => wanted.get(row.metric).metric === name && kept.has(row.scope))
          .map((row) => ({ layer: String(wanted.get(row.metric).layer), scope: row.scope, dz: row.dz, adj_dz: row.adj_dz, verdict: row.verdict, n: row.n }));
        tell(chart, `${symbol} of ${name} by layer and domain`, cells.map((cell) => `layer ${cell.layer}, ${cell.scope} ${shown(cell.dz, true)}`));
        const doc = metrics.find((metric) => metric.metric === name && metric.layer !== null).doc;
        home.append(el("figure", {}, el("figcaption", { title: doc }, name), chart));
        await draw(chart, data.specs.heat, { rows: cells });
      }
      roving(home, [[...home.querySelectorAll(".save > summary")]]); // one stop of the keyboard, not one a chart
      if (scopes.length > kept.size) home.append(el("p", { class: "note" }, `The first ${most} of ${scopes.length - 1} domains.`));
    },
    ladder() {
      const [metric, scope] = chosen("ladder");
      const rows = rowsOf(data.ladder, (row) => row.metric === metric && row.scope === scope);
      const reasons = unique(rows.filter((row) => missing(row.dz) && row.reason).map((row) => `${row.rung}: ${row.reason}`));
      say("ladder-note", reasons.length ? `Not computed: ${reasons.join("; ")}.` : "");
      tell("ladder", `${metric}, ${scope}`, rows.filter((row) => !missing(row.dz)).map((row) => `${row.rung} (${row.form}) ${shown(row.dz, true)}`));
      return draw("ladder", data.specs.ladder, { rows: rows.filter((row) => !missing(row.dz)) });
    },
    dose() {
      const [scope] = chosen("dose");
      const rows = rowsOf(data.dose, (row) => row.scope === scope);
      say("dose-note", "Means with 95 % intervals of the mean.");
      tell("dose", `Stability, ${scope}`, rows.map((row) => `${row.view} at noise ${row.s}: ${shown(row.mean)}`));
      return draw("dose", data.specs.dose, { rows });
    },
    async trajectory() {
      const home = byId("trajectory");
      home.replaceChildren();
      for (const scope of unique(data.trajectory.scope)) {
        const rows = rowsOf(data.trajectory, (row) => row.scope === scope);
        const chart = el("div", { class: "chart", role: "img", "aria-label": `Log-probability by layer, ${scope}` });
        const n = paired ? rows[0].n : words.views.map((view) => (rows.find((row) => row.view === view) || { n: 0 }).n).join(" + ");
        tell(chart, `Log-probability by layer, ${scope}`, rows.map((row) => `layer ${row.layer}, ${row.view} ${shown(row.mean)}`));
        home.append(el("figure", {}, el("figcaption", {}, `${scope} (n = ${n})`), chart));
        await draw(chart, data.specs.trajectory, { rows });
      }
    },
    scatter() {
      const [name] = chosen("scatter");
      const metric = metricNamed.get(name);
      const usable = [];
      for (let i = 0; i < count; i++) if (paired ? !missing(metric.fact[i]) && !missing(metric.hall[i]) : !missing(valueOf(metric, i))) usable.push(i);
      const some = sample(usable, data.mostPoints);
      const sides = paired
        ? (i) => ({ fact: metric.fact[i], hall: metric.hall[i], fact_text: short(pairs.fact[i], 160), hall_text: short(pairs.hallucination[i], 160) })
        : (i) => ({ value: valueOf(metric, i), view: words.views[sideOf(i)], text: short(pairs.completion[i], 160) });
      const rows = some.map((i) => ({
        i, id: pairs.id[i], domain: pairs.domain[i] === null ? "null" : pairs.domain[i], prompt: short(pairs.prompt[i], 160), ...sides(i),
      }));
      const values = paired ? rows.flatMap((row) => [row.fact, row.hall]) : [];
      const [low, high] = [[Math.min, Infinity], [Math.max, -Infinity]].map(([pick, first]) => values.reduce((a, b) => pick(a, b), first));
      const ends = values.length ? [low, high].map((end) => ({ x: end, y: end })) : [];
      const which = some.length < usable.length ? `${some.length.toLocaleString("en")} of ${usable.length.toLocaleString("en")} ${words.items}, drawn at random. ` : "";
      say("scatter-note", usable.length ? `${which}${metric.doc}` : "No values in this run.");
      tell("scatter", `${metric.called}, ${usable.length} ${words.items}`, stats.metric ? rowsOf(stats, (row) => row.metric === name && row.scope === "pooled").map((row) => `mean of ${words.facts} ${shown(row.mean_fact)}, of ${words.halls} ${shown(row.mean_hall)}`) : []);
      return draw("scatter", data.specs.scatter, { rows, ends }, (datum) => datum.i !== undefined && follow(linkOf(datum.i)));
    },
    auroc() {
      const [scope] = chosen("auroc");
      const all = rowsOf(data.detectors, (row) => row.scope === scope);
      const reasons = all.filter((row) => missing(row.auroc)).map((row) => `${detectorName(row.detector)}${row.reason ? `: ${row.reason}` : ""}`);
      say("auroc-note", reasons.length ? `Not computed: ${reasons.join("; ")}.` : "");
      const rows = all.filter((row) => !missing(row.auroc)).map((row) => ({ name: detectorName(row.detector), ...row }));
      return draw("auroc", data.specs.auroc, { rows }, null, titlesOf(scope).auroc, rows.map((row) => `${row.name} ${ended(row.auroc, row.lo, row.hi)}`).join("; "));
    },
    gain() {
      const [scope] = chosen("gain");
      const rows = rowsOf(data.detectors, (row) => row.scope === scope && !missing(row.gain)).map((row) => ({ name: detectorName(row.detector), ...row }));
      return draw("gain", data.specs.gain, { rows }, null, titlesOf(scope).gain, rows.map((row) => `${row.name} ${ended(row.gain, row.gain_lo, row.gain_hi)}`).join("; "));
    },
    reliability() {
      const [scope, detector] = chosen("reliability");
      const { reliability = {}, titles = [] } = curveOf(detector, scope);
      const rows = rowsOf(reliability);
      return draw("reliability", data.specs.reliability, { rows }, null, titles[0] || NO_CURVE, rows.map((row) => `of ${row.n} texts at ${row.x.toFixed(2)}, ${ended(row.y, row.lo, row.hi)}`).join("; "));
    },
    risk() {
      const [scope, detector] = chosen("risk");
      const { titles = [] } = curveOf(detector, scope);
      const names = unique([detector, titlesOf(scope).baseline].filter(Boolean));
      const rows = names.flatMap((name) => rowsOf(curveOf(name, scope).risk || {}).map((row) => ({ name: detectorName(name), ...row, other: name !== detector })));
      return draw("risk", data.specs.risk, { rows }, null, titles[1] || NO_CURVE, names.length > 1 ? `Beside it ${detectorName(names[1])}` : "");
    },
    transfer() {
      const [detector, column] = chosen("transfer");
      const rows = rowsOf(data.transfer, (row) => row.detector === detector && columnOf(row.train) === column);
      say("transfer-note", rows.some((row) => row.learnt === false) ? "Pale: nothing was learnt from the training domain, so AUROC elsewhere is chance." : "");
      const summary = rows.map((row) => `${row.train} to ${row.test} ${ended(row.auroc, row.lo, row.hi)}`).join("; ");
      const mean = (some) => (some.length ? (some.reduce((sum, row) => sum + row.auroc, 0) / some.length).toFixed(2) : "-");
      const own = rows.filter((row) => row.train === row.test);
      const elsewhere = rows.filter((row) => row.train !== row.test && row.learnt !== false);
      const title = `${detectorName(detector)}: mean AUROC ${mean(own)} where trained, ${elsewhere.length ? `${mean(elsewhere)} elsewhere` : "and nothing learnt to carry elsewhere"}`;
      return draw("transfer", data.specs.transfer, { rows }, null, title[0].toUpperCase() + title.slice(1), summary);
    },
    sweep() {
      const rows = rowsOf(data.sweep);
      const at = new Set(rows.map((row) => row.position).filter((position) => !missing(position))).size > 1 ? (row) => ` read at ${row.position}` : () => "";
      const summary = rows.filter((row) => !missing(row.layer)).map((row) => `${row.name} at layer ${row.layer}${at(row)} ${ended(row.auroc, row.lo, row.hi)}`).join("; ");
      return draw("sweep", data.specs.sweep, { rows }, null, data.sweepTitle, summary);
    },
    carried() {
      const [detector] = chosen("carried");
      const rows = rowsOf(data.carried, (row) => row.detector === detector);
      // Each cell is as wide as its words: what does not fit is scrolled.
      byId("carried").style.width = `${unique(rows.map((row) => row.test)).length * data.cell + 150}px`;
      return draw("carried", data.specs.carried, { rows }, null, data.carriedTitles[detector], "The table below has the numbers");
    },
  };
  const NO_CURVE = "No curve: too few texts";
  const detectorName = (detector) => (Object.hasOwn(data.names, detector) ? data.names[detector] : detector);
  const ended = (value, lo, hi) => `${value.toFixed(2)}${missing(lo) || missing(hi) ? "" : ` (${lo.toFixed(2)} to ${hi.toFixed(2)})`}`;
  const within = (table, name) => (Object.hasOwn(table, name) ? table[name] : {});
  const titlesOf = (scope) => within(data.titles, scope);
  const curveOf = (detector, scope) => within(within(data.curves, detector), scope);

  // The same sample at every visit: a linear congruential generator in place of Math.random.
  function sample(items, most) {
    if (items.length <= most) return items;
    const pool = [...items];
    let state = 1;
    for (let i = 0; i < most; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const j = i + Math.floor((state / 4294967296) * (pool.length - i));
      [pool[i], pool[j]] = [pool[j], pool[i]];
    }
    return pool.slice(0, most).sort((a, b) => a - b);
  }

  // Metrics and detectors are called by words; what they are in the tables is the option's value.
  const called = (value, from) => (from === "metrics" ? metricNamed.get(value).called : DETECTORS.includes(from) ? detectorName(value) : value);
  function fill(select, values, first, from) {
    select.replaceChildren(...values.map((value) => el("option", { value, title: value }, short(called(value, from), 60))));
    if (values.includes(first)) select.value = first;
  }

