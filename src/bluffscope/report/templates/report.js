"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // A pair has a text of both sides, fact and hallucination; a labelled text is of one side, true or false.
  const { pairs, metrics, stats, words } = data;
  const { paired, symbol } = words;
  const count = pairs.id.length;
  const PAGE = 50;
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

  const options = { renderer: "svg", actions: false, ast: true, tooltip: { theme: "custom" }, config: data.config };
  // What was drawn: title and numbers in words for those who cannot see it, above the chart where there is a place for it.
  async function draw(id, spec, datasets, clicked, title, summary) {
    const home = typeof id === "string" ? byId(id) : id;
    if (!home) return;
    if (title) say(`${id}-title`, title);
    // Vega-Lite fits a chart into the width of its place only where its height is a number.
    const height = spec.height.step ? spec.height.step * Math.max(1, unique(datasets.rows.map((row) => row[spec.usermeta.rows])).length) : spec.height;
    // As bluffscope.report.panels.named says: a name that every object has must not be found where Vega looks groups up.
    const rows = datasets.rows.map((row) => ({ ...row, ...Object.fromEntries(data.named.filter((name) => name in row).map((name) => [name, `${row[name]} `])) }));
    const description = title ? [title, summary].filter(Boolean).join(". ") : home.getAttribute("aria-label");
    const whole = { ...spec, height, description, datasets: { ...datasets, rows } };
    const result = await window.vegaEmbed(home, whole, options);
    savable(home, whole, datasets.rows, title || description);
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

  const MOST_EFFECTS = 60;
  const charts = {
    forest() {
      const [scope] = chosen("forest");
      let rows = rowsOf(stats, (row) => row.scope === scope && !missing(row.dz));
      const largest = [...rows].sort((a, b) => Math.abs(b.dz) - Math.abs(a.dz)).slice(0, MOST_EFFECTS);
      const all = rows.length;
      if (byId("forest-order").value === "size") rows = largest;
      else if (all > MOST_EFFECTS) rows = rows.filter((row) => largest.includes(row));
      say("forest-note", !all ? "Nothing to show: no effect size is defined here." : all > MOST_EFFECTS ? `The ${MOST_EFFECTS} largest of ${all}.` : "");
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
        const doc = metrics.find((metric) => metric.metric === name && metric.layer !== null).doc;
        home.append(el("figure", {}, el("figcaption", { title: doc }, name), chart));
        await draw(chart, data.specs.heat, { rows: cells });
      }
      if (scopes.length > kept.size) home.append(el("p", { class: "note" }, `The first ${most} of ${scopes.length - 1} domains.`));
    },
    ladder() {
      const [metric, scope] = chosen("ladder");
      const rows = rowsOf(data.ladder, (row) => row.metric === metric && row.scope === scope);
      const reasons = unique(rows.filter((row) => missing(row.dz) && row.reason).map((row) => `${row.rung}: ${row.reason}`));
      say("ladder-note", reasons.length ? `Not computed: ${reasons.join("; ")}.` : "");
      return draw("ladder", data.specs.ladder, { rows: rows.filter((row) => !missing(row.dz)) });
    },
    dose() {
      const [scope] = chosen("dose");
      const rows = rowsOf(data.dose, (row) => row.scope === scope);
      say("dose-note", "Means with 95 % intervals of the mean.");
      return draw("dose", data.specs.dose, { rows });
    },
    async trajectory() {
      const home = byId("trajectory");
      home.replaceChildren();
      for (const scope of unique(data.trajectory.scope)) {
        const rows = rowsOf(data.trajectory, (row) => row.scope === scope);
        const chart = el("div", { class: "chart", role: "img", "aria-label": `Log-probability by layer, ${scope}` });
        const n = paired ? rows[0].n : words.views.map((view) => (rows.find((row) => row.view === view) || { n: 0 }).n).join(" + ");
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
      return draw("scatter", data.specs.scatter, { rows, ends }, (datum) => datum.i !== undefined && openOne(datum.i));
    },
    auroc() {
      const [scope] = chosen("auroc");
      const all = rowsOf(data.detectors, (row) => row.scope === scope);
      const reasons = all.filter((row) => missing(row.auroc)).map((row) => `${called(row.detector)}${row.reason ? `: ${row.reason}` : ""}`);
      say("auroc-note", reasons.length ? `Not computed: ${reasons.join("; ")}.` : "");
      const rows = all.filter((row) => !missing(row.auroc)).map((row) => ({ name: called(row.detector), ...row }));
      return draw("auroc", data.specs.auroc, { rows }, null, titlesOf(scope).auroc, rows.map((row) => `${row.name} ${ended(row.auroc, row.lo, row.hi)}`).join("; "));
    },
    gain() {
      const [scope] = chosen("gain");
      const rows = rowsOf(data.detectors, (row) => row.scope === scope && !missing(row.gain)).map((row) => ({ name: called(row.detector), ...row }));
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
      const rows = names.flatMap((name) => rowsOf(curveOf(name, scope).risk || {}).map((row) => ({ name: called(name), ...row, other: name !== detector })));
      return draw("risk", data.specs.risk, { rows }, null, titles[1] || NO_CURVE, names.length > 1 ? `Beside it ${called(names[1])}` : "");
    },
    transfer() {
      const [detector, column] = chosen("transfer");
      const rows = rowsOf(data.transfer, (row) => row.detector === detector && columnOf(row.train) === column);
      say("transfer-note", rows.some((row) => row.learnt === false) ? "Pale: nothing was learnt from the training domain, so AUROC elsewhere is chance." : "");
      const summary = rows.map((row) => `${row.train} to ${row.test} ${ended(row.auroc, row.lo, row.hi)}`).join("; ");
      const mean = (some) => (some.length ? (some.reduce((sum, row) => sum + row.auroc, 0) / some.length).toFixed(2) : "-");
      const own = rows.filter((row) => row.train === row.test);
      const elsewhere = rows.filter((row) => row.train !== row.test && row.learnt !== false);
      const title = `${called(detector)}: mean AUROC ${mean(own)} where trained, ${elsewhere.length ? `${mean(elsewhere)} elsewhere` : "and nothing learnt to carry elsewhere"}`;
      return draw("transfer", data.specs.transfer, { rows }, null, title[0].toUpperCase() + title.slice(1), summary);
    },
    sweep() {
      const rows = rowsOf(data.sweep);
      const summary = rows.filter((row) => !missing(row.layer)).map((row) => `${row.name} at layer ${row.layer} ${ended(row.auroc, row.lo, row.hi)}`).join("; ");
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
  const called = (detector) => (Object.hasOwn(data.names, detector) ? data.names[detector] : detector);
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

  function fill(select, values, first, label = (value) => value) {
    select.replaceChildren(...values.map((value) => el("option", { value }, short(label(value), 60))));
    if (values.includes(first)) select.value = first;
  }

  // ---- one cell of the verdicts, one pair or text
  function open(title, ...parts) {
    byId("story-title").textContent = title;
    byId("story-body").replaceChildren(...parts.filter(Boolean));
    if (!byId("story").open) byId("story").showModal();
    byId("story").scrollTop = 0;
  }

  const SENTENCES = [
    [words.items, "n", shown], ["true texts", "n_true", shown], ["false texts", "n_false", shown], [`clusters of ${words.items}`, "clusters", shown],
    [`mean of ${words.facts}`, "mean_fact", shown], [`mean of ${words.halls}`, "mean_hall", shown],
    ["mean difference", "mean_diff", (v) => shown(v, true)], [symbol, "dz", (v) => shown(v, true)], ["95 % interval from", "dz_lo", (v) => shown(v, true)],
    ["to", "dz_hi", (v) => shown(v, true)], ["p (t test over clusters)", "p", chance], ["its q", "raw_q", chance],
    [`${symbol} at equal lengths`, "adj_dz", (v) => shown(v, true)], ["95 % interval from", "adj_lo", (v) => shown(v, true)], ["to", "adj_hi", (v) => shown(v, true)],
    ["its p", "adj_p", chance], ["its q", "adj_q", chance], ["q of both at once", "q", chance], ["the same, skewness allowed for", "skew_q", chance],
    [`q of |${symbol}| < 0.2`, "equivalence_q", chance], ["p (Wilcoxon)", "p_wilcoxon", chance], ["p (sign flips of clusters)", "p_signflip", chance],
    ["d_z at equal lengths, straight line", "linear_dz", (v) => shown(v, true)], ["pairs of equal length", "n_equal_length", shown],
    ["d_z of those", "equal_length_dz", (v) => shown(v, true)], ["AUROC", "auroc", shown], ["P(hallucination > fact) within a pair", "p_paired", shown],
    ["AUROC gained over length alone", "cv_auroc_gain", (v) => shown(v, true)], [`smallest ${symbol} found with 80 % power`, "mde80", shown],
  ];
  function openStat(index) {
    const row = {};
    for (const name of Object.keys(stats)) row[name] = stats[name][index];
    const metric = metricNamed.get(row.metric);
    const body = SENTENCES.filter(([, name]) => name in row).map(([label, name, style]) =>
      el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, style(row[name]))));
    open(`${row.metric}, ${row.scope}`,
      el("p", {}, el("span", { class: `badge ${row.verdict}` }, row.verdict), ` ${row.reason}.`),
      metric && metric.doc ? el("p", { class: "faint" }, metric.doc) : null,
      el("table", { class: "values" }, el("tbody", {}, ...body)));
  }

  function passage(kind, label, text, token, tokens) {
    const facts = [missing(tokens) ? null : `${tokens} token${tokens === 1 ? "" : "s"}`, missing(token) ? null : `read at ${JSON.stringify(token)}`];
    return el("div", { class: `passage ${kind}` },
      el("div", { class: "faint" }, [label, ...facts.filter(Boolean)].join(", ")), el("div", { class: "words", dir: "auto" }, text));
  }
  function chips(layer, entries, others) {
    const home = data.neuronpedia[String(layer)];
    const items = [];
    for (let k = 0; k < entries.length; k += 2) {
      const label = `${entries[k]} `;
      const name = home ? el("a", { href: `${home}/${entries[k]}`, target: "_blank", rel: "noopener noreferrer" }, label) : label;
      items.push(el("li", { class: others.has(entries[k]) ? "shared" : null }, name, el("span", { class: "faint" }, shown(entries[k + 1]))));
    }
    return el("ul", { class: "chips" }, ...(items.length ? items : [el("li", {}, "none active")]));
  }
  const sideOf = (i) => (pairs.label[i] ? 0 : 1);
  const labelOf = (i) => [words.fact, words.hall][sideOf(i)];
  const valueOf = (metric, i) => (sideOf(i) ? metric.hall : metric.fact)[i];
  const carriedBy = (i) => Object.entries(pairs.carried).filter(([, values]) => !missing(values[i])).map(([name, values]) => `${name}: ${values[i]}`);
  const tokensOf = (i, name) => (pairs.tokens[name] ? pairs.tokens[name][i] : null);
  function aboutOf(i) {
    const about = [`domain ${pairs.domain[i]}`];
    if (pairs.complexity && !missing(pairs.complexity[i])) about.push(`complexity ${pairs.complexity[i]}`);
    if (pairs.group && !missing(pairs.group[i])) about.push(`group ${pairs.group[i]}`);
    return el("p", { class: "faint", dir: "auto" }, [...about, ...carriedBy(i)].join("; "));
  }
  function valueTable(heads, cells) {
    const values = metrics.map((metric) =>
      el("tr", { title: metric.doc || null }, el("th", { scope: "row" }, metric.name.replaceAll("_", "_\u200b")), ...cells(metric).map((cell) => el("td", {}, cell))));
    return el("table", { class: "values" }, el("thead", {}, el("tr", {}, ...["metric", ...heads].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...values));
  }
  function openItem(i, passages, table, note, chipsOf) {
    const parts = [];
    const story = data.features.pairs[i] || [];
    data.features.layers.forEach((layer, place) => parts.push(el("h4", {}, `Layer ${layer}`), ...chipsOf(layer, story[place])));
    open(String(pairs.id[i]), aboutOf(i), ...passages, el("h3", {}, "Metrics"), ...table,
      parts.length ? el("h3", {}, `Strongest features${data.features.most ? ` (at most ${data.features.most})` : ""}`) : null,
      parts.length ? el("p", { class: "faint" }, note) : null, ...parts);
  }
  const prompted = (i) => passage("", "prompt", pairs.prompt[i], tokensOf(i, "prompt_read_token"), tokensOf(i, "prompt_tokens"));
  function openPair(i) {
    const of = (list) => new Set(list.filter((_, k) => k % 2 === 0));
    const diff = (metric) => (missing(metric.fact[i]) || missing(metric.hall[i]) ? null : metric.hall[i] - metric.fact[i]);
    const cells = (metric) => [shown(metric.fact[i]), shown(metric.hall[i]), shown(diff(metric), true)];
    openItem(i, [prompted(i),
      passage("fact", "fact", pairs.fact[i], tokensOf(i, "fact_read_token"), tokensOf(i, "fact_tokens")),
      passage("hall", "hallucination", pairs.hallucination[i], tokensOf(i, "hall_read_token"), tokensOf(i, "hall_tokens"))],
    [valueTable(["fact", "halluc.", "diff"], cells)],
    "Index and activation; pale: among the strongest of both texts.", (layer, [fact, hall]) => [
      el("span", { class: "faint" }, "fact"), chips(layer, fact, of(hall)), el("span", { class: "faint" }, "hallucination"), chips(layer, hall, of(fact))]);
  }
  // A text has no partner: its values stand beside those of the other texts of its domain.
  function openText(i) {
    const others = [0, 1].map((side) => [...Array(count).keys()].filter((k) => k !== i && pairs.domain[k] === pairs.domain[i] && sideOf(k) === side));
    const cells = (metric) => {
      const own = valueOf(metric, i);
      const known = others.map((side) => side.map((k) => valueOf(metric, k)).filter((one) => !missing(one)));
      const means = known.map((values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null));
      const below = known.map((values) => (missing(own) || !values.length ? "-" : (100 * values.filter((value) => value < own).length / values.length).toFixed(0) + " %"));
      return [shown(own), shown(means[0]), shown(means[1]), below.join(" / ")];
    };
    const kind = ["fact", "hall"][sideOf(i)];
    openItem(i, [pairs.prompt[i] ? prompted(i) : null, passage(kind, `${labelOf(i)} text`, pairs.completion[i], tokensOf(i, "read_token"), tokensOf(i, "text_tokens"))],
    [el("p", { class: "faint" }, `Beside the ${others[0].length} other true and ${others[1].length} other false texts${unique(pairs.domain).length > 1 ? " of its domain" : ""}: their means, and the shares of the true and of the false that lie below it.`),
      valueTable(["value", "mean, true", "mean, false", "lie below"], cells)],
    "Index and activation.", (layer, story) => [chips(layer, story[sideOf(i)], new Set())]);
  }
  const openOne = paired ? openPair : openText;

  // ---- the table of items: one page of rows in the document at a time
  const table = { order: [...Array(count).keys()], found: [...Array(count).keys()], page: 0, key: null, down: false };
  let searchable = null;
  function columns() {
    const metric = metricNamed.get(byId("pair-metric") ? byId("pair-metric").value : "");
    const diff = (i) => (missing(metric.fact[i]) || missing(metric.hall[i]) ? null : metric.hall[i] - metric.fact[i]);
    if (!paired) {
      const prompts = pairs.prompt.some(Boolean);
      const list = [["id", (i) => pairs.id[i], ""], ["domain", (i) => pairs.domain[i], "text"], ["label", labelOf, "text"]];
      if (prompts) list.push(["prompt", (i) => pairs.prompt[i], "text"]);
      list.push([prompts ? "completion" : "text", (i) => pairs.completion[i], "text"]);
      if (pairs.tokens.text_tokens) list.push(["tokens", (i) => pairs.tokens.text_tokens[i], "number"]);
      if (metric) list.push(["value", (i) => valueOf(metric, i), "number"]);
      if (Object.keys(pairs.carried).length) list.push(["carried", (i) => carriedBy(i).join("; "), "text"]);
      return list;
    }
    const list = [
      ["pair", (i) => pairs.id[i], ""], ["domain", (i) => pairs.domain[i], "text"], ["prompt", (i) => pairs.prompt[i], "text"],
      ["fact", (i) => pairs.fact[i], "text"], ["hallucination", (i) => pairs.hallucination[i], "text"],
    ];
    if (metric) list.push(["value, fact", (i) => metric.fact[i], "number"], ["value, halluc.", (i) => metric.hall[i], "number"], ["difference", diff, "number"]);
    return list;
  }
  function search() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    searchable ??= pairs.id.map((id, i) => [id, pairs.domain[i], pairs.prompt[i], ...(paired ? [pairs.fact[i], pairs.hallucination[i]] : [labelOf(i), pairs.completion[i]]),
      ...Object.values(pairs.carried).map((values) => values[i])].join("\n").toLowerCase());
    table.found = table.order.filter((i) => words.every((word) => searchable[i].includes(word)));
    table.page = 0;
    rows();
  }
  function sort(key) {
    table.down = table.key === key ? !table.down : false;
    table.key = key;
    const get = columns().find(([name]) => name === key)[1];
    const sign = table.down ? -1 : 1;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    table.order = [...Array(count).keys()].sort((a, b) => {
      const [x, y] = [get(a), get(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // undefined last, either way
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : compare(x, y)) || a - b;
    });
    search();
  }
  function rows() {
    const list = columns();
    const heads = list.map(([name]) => {
      const on = table.key === name;
      const head = el("th", { scope: "col", "aria-sort": on ? (table.down ? "descending" : "ascending") : "none" },
        el("button", { type: "button", onclick: () => { sort(name); focusHead(name); } }, name + (on ? (table.down ? " ▾" : " ▴") : "")));
      head.dataset.key = name;
      return head;
    });
    byId("pair-table").tHead.replaceChildren(el("tr", {}, ...heads));
    const pages = Math.max(1, Math.ceil(table.found.length / PAGE));
    table.page = Math.min(Math.max(0, table.page), pages - 1);
    const visible = table.found.slice(table.page * PAGE, (table.page + 1) * PAGE);
    byId("pair-table").tBodies[0].replaceChildren(...visible.map((i) => {
      const cells = list.map(([, get, kind], place) => {
        const value = get(i);
        if (!place) return el("td", {}, el("button", { type: "button", class: "open", onclick: () => openOne(i) }, el("bdi", {}, String(value))));
        return el("td", { class: kind, dir: kind === "text" ? "auto" : null }, kind === "number" ? shown(value) : short(missing(value) ? "-" : String(value), 160));
      });
      return el("tr", {}, ...cells);
    }));
    const all = count.toLocaleString("en");
    say("found", table.found.length === count ? `${all} ${words.items}` : `${table.found.length.toLocaleString("en")} of ${all} ${words.items}`);
    say("page", `page ${table.page + 1} of ${pages}`);
    byId("previous").disabled = table.page === 0;
    byId("next").disabled = table.page >= pages - 1;
  }
  const focusHead = (name) => byId("pair-table").tHead.querySelector(`[data-key="${CSS.escape(name)}"] button`).focus();

  // ---- theme: that of the system, until somebody chooses
  function theme() {
    const chosenTheme = document.documentElement.dataset.theme;
    const dark = chosenTheme ? chosenTheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    byId("theme").setAttribute("aria-pressed", String(dark));
    return dark;
  }

  // ---- start
  for (const select of document.querySelectorAll("[data-choose]")) {
    fill(select, lists[select.dataset.from], firsts[select.dataset.from], DETECTORS.includes(select.dataset.from) ? called : undefined);
    select.addEventListener("change", () => select.dataset.choose.split(" ").forEach((name) => charts[name]()));
  }
  if (byId("forest-order")) byId("forest-order").addEventListener("change", () => charts.forest());
  if (byId("pair-metric")) {
    fill(byId("pair-metric"), lists.metrics, data.first);
    byId("pair-metric").addEventListener("change", () => { table.key = null; rows(); });
  }
  byId("search").addEventListener("input", search);
  byId("previous").addEventListener("click", () => { table.page -= 1; rows(); });
  byId("next").addEventListener("click", () => { table.page += 1; rows(); });
  for (const cell of document.querySelectorAll("[data-stat]")) cell.addEventListener("click", () => openStat(Number(cell.dataset.stat)));
  byId("story").addEventListener("click", (event) => { if (event.target === byId("story")) byId("story").close(); });
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() ? "light" : "dark";
    theme();
  });
  theme();
  if (pairs.cut) say("cut-note", `Texts longer than ${pairs.cut.toLocaleString("en")} characters are cut here; ${words.items}.parquet has all of them.`);
  rows();
  (async () => {
    for (const name of Object.keys(charts)) {
      if (byId(name)) await charts[name]();
      await new Promise((resolve) => setTimeout(resolve)); // let the page answer between two charts
    }
    document.documentElement.dataset.drawn = "true";
  })();
})();
