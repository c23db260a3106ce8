  // ---- what opens on its own: a cell of the verdicts, a pair or text, a feature
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

  const sideOf = (i) => (pairs.label[i] ? 0 : 1);
  const labelOf = (i) => [words.fact, words.hall][sideOf(i)];
  const valueOf = (metric, i) => (sideOf(i) ? metric.hall : metric.fact)[i];
  const diffOf = (metric, i) => (missing(metric.fact[i]) || missing(metric.hall[i]) ? null : metric.hall[i] - metric.fact[i]);
  const carriedBy = (i) => Object.entries(pairs.carried).filter(([, values]) => !missing(values[i])).map(([name, values]) => `${name}: ${values[i]}`);
  const tokensOf = (i, name) => (pairs.tokens[name] ? pairs.tokens[name][i] : null);

  // The token that was read, marked where it ends the text; other positions keep none.
  function marked(text, token) {
    const end = data.position === "last" && token ? token.trim() : "";
    if (!end || !text || !text.trimEnd().endsWith(end)) return [text];
    const from = text.trimEnd().length - end.length;
    return [text.slice(0, from), el("mark", {}, text.slice(from))];
  }
  function passage(kind, label, text, token, tokens) {
    const facts = [missing(tokens) ? null : `${tokens} token${tokens === 1 ? "" : "s"}`, missing(token) ? null : `read at ${JSON.stringify(token)}`];
    return el("div", { class: `passage ${kind}` },
      el("div", { class: "faint" }, [label, ...facts.filter(Boolean)].join(", ")), el("div", { class: "words", dir: "auto" }, ...marked(text, token)));
  }
  function aboutOf(i) {
    const about = [`domain ${pairs.domain[i]}`];
    if (pairs.complexity && !missing(pairs.complexity[i])) about.push(`complexity ${pairs.complexity[i]}`);
    if (pairs.group && !missing(pairs.group[i])) about.push(`group ${pairs.group[i]}`);
    return el("p", { class: "faint", dir: "auto" }, [...about, ...carriedBy(i)].join("; "));
  }
  const headed = (heads, ...rows) => el("table", { class: "values" }, el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
  const line = (head, cells, title) => el("tr", { title: title || null }, el("th", { scope: "row" }, head), ...cells.map((cell) => el("td", {}, cell)));
  const valueTable = (heads, cells) => headed(["metric", ...heads], ...metrics.map((metric) => line(metric.called, cells(metric), [metric.name, metric.doc].filter(Boolean).join(": "))));

  // A feature's name leads to its part of the page, or to Neuronpedia where the page has none.
  function featureLink(layer, feature) {
    const home = data.neuronpedia[String(layer)];
    if (data.cards.some((card) => card.layer === layer && card.feature === feature)) return el("a", { href: `#feature/${layer}/${feature}` }, String(feature));
    return home ? el("a", { href: `${home}/${feature}`, target: "_blank", rel: "noopener noreferrer" }, String(feature)) : String(feature);
  }

  // ---- values of one item from layer to layer
  const layeredBy = (i) => unique(metrics.filter((metric) => metric.layer !== null).map((metric) => metric.metric)).filter((name) =>
    metrics.filter((metric) => metric.metric === name && metric.layer !== null && pointsOf(metric, i).length).length > 1);
  const pointsOf = (metric, i) => (paired ? [metric.fact[i], metric.hall[i]] : [valueOf(metric, i)])
    .map((value, side) => ({ layer: metric.layer, view: words.views[paired ? side : sideOf(i)], value })).filter((row) => !missing(row.value));
  function byLayer(i) {
    const names = layeredBy(i);
    if (!names.length) return null;
    const leading = metricNamed.get(data.first);
    const first = ["lens_logprob", leading && leading.metric].find((name) => names.includes(name)) || names[0];
    const select = el("select", {}, ...names.map((name) => el("option", { value: name }, name.replaceAll("_", " "))));
    select.value = first;
    const chart = el("div", { class: "chart narrow", role: "img" });
    const drawn = () => {
      const rows = metrics.filter((metric) => metric.metric === select.value && metric.layer !== null).flatMap((metric) => pointsOf(metric, i));
      tell(chart, `${select.value} by layer`, rows.map((row) => `layer ${row.layer}, ${row.view} ${shown(row.value)}`));
      return draw(chart, data.specs.layers, { rows });
    };
    select.addEventListener("change", drawn);
    return [el("div", {}, el("h3", {}, "By layer"), el("p", { class: "controls" }, el("label", {}, "Metric ", select)), chart), drawn];
  }

  function openItem(i, passages, table, features) {
    const layers = byLayer(i);
    open(String(pairs.id[i]), aboutOf(i), ...passages, layers && layers[0], ...features, el("h3", {}, "Metrics"), ...table);
    if (layers) layers[1]();
  }
  const prompted = (i) => passage("", "prompt", pairs.prompt[i], tokensOf(i, "prompt_read_token"), tokensOf(i, "prompt_tokens"));
  function openPair(i) {
    const cells = (metric) => [shown(metric.fact[i]), shown(metric.hall[i]), shown(diffOf(metric, i), true)];
    const story = data.features.pairs[i] || [];
    const moved = data.features.layers.flatMap((layer, place) => {
      const rows = [];
      for (let k = 0; k < story[place].length; k += 3) {
        const [feature, fact, hall] = story[place].slice(k, k + 3);
        rows.push(line(featureLink(layer, feature), [shown(fact), shown(hall), shown(Number((hall - fact).toPrecision(3)), true)]));
      }
      return [el("h4", {}, `Layer ${layer}`), rows.length ? headed(["feature", "fact", "halluc.", "diff"], ...rows) : el("p", {}, "None differs.")];
    });
    openItem(i, [prompted(i),
      passage("fact", "fact", pairs.fact[i], tokensOf(i, "fact_read_token"), tokensOf(i, "fact_tokens")),
      passage("hall", "hallucination", pairs.hallucination[i], tokensOf(i, "hall_read_token"), tokensOf(i, "hall_tokens"))],
    [valueTable(["fact", "halluc.", "diff"], cells)],
    moved.length ? [el("h3", {}, "Features that moved"), el("p", { class: "faint" }, `Activations; the ${data.features.most} largest changes of a layer at most.`), ...moved] : []);
  }
  // A text has no partner: its values stand beside those of the other texts of its domain.
  function openText(i) {
    const others = [0, 1].map((side) => [...Array(count).keys()].filter((k) => k !== i && pairs.domain[k] === pairs.domain[i] && sideOf(k) === side));
    const cells = (metric) => {
      const own = valueOf(metric, i);
      const known = others.map((side) => side.map((k) => valueOf(metric, k)).filter((one) => !missing(one)));
      const means = known.map((values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null));
      const below = known.map((values) => (missing(own) || !values.length ? "-" : percent(values.filter((value) => value < own).length / values.length)));
      return [shown(own), shown(means[0]), shown(means[1]), below.join(" / ")];
    };
    const kind = ["fact", "hall"][sideOf(i)];
    const story = data.features.pairs[i] || [];
    const strongest = data.features.layers.flatMap((layer, place) => {
      const chips = [];
      for (let k = 0; k < story[place].length; k += 2) chips.push(el("li", {}, featureLink(layer, story[place][k]), " ", el("span", { class: "faint" }, shown(story[place][k + 1]))));
      return [el("h4", {}, `Layer ${layer}`), el("ul", { class: "chips" }, ...(chips.length ? chips : [el("li", {}, "none active")]))];
    });
    openItem(i, [pairs.prompt[i] ? prompted(i) : null, passage(kind, `${labelOf(i)} text`, pairs.completion[i], tokensOf(i, "read_token"), tokensOf(i, "text_tokens"))],
    [el("p", { class: "faint" }, `Beside the ${others[0].length} other true and ${others[1].length} other false texts${unique(pairs.domain).length > 1 ? " of its domain" : ""}: their means, and the shares of the true and of the false that lie below it.`),
      valueTable(["value", "mean, true", "mean, false", "lie below"], cells)],
    strongest.length ? [el("h3", {}, `Strongest features${data.features.most ? ` (at most ${data.features.most})` : ""}`), el("p", { class: "faint" }, "Index and activation."), ...strongest] : []);
  }
  const openOne = paired ? openPair : openText;

  // ---- one feature
  function openFeature(layer, feature) {
    const card = data.cards.find((one) => one.layer === layer && one.feature === feature);
    if (!card) return open(`Feature ${feature}, layer ${layer}`, el("p", {}, "It is not among the features that this page lists: ", el("code", {}, "bluffscope features"), " has all."));
    const home = data.neuronpedia[String(layer)];
    const sides = (shares) => shares.map(percent);
    const rows = card.bins[0].flatMap((_, bin) => words.views.map((view, side) => ({
      view, lo: (bin * card.most) / card.bins[0].length, hi: ((bin + 1) * card.most) / card.bins[0].length, share: card.bins[side][bin],
    }))).filter((row) => row.share);
    const chart = el("div", { class: "chart narrow", role: "img" });
    tell(chart, `Activations of feature ${feature}`, words.views.map((view, side) => `${card.bins[side].reduce((a, b) => a + b, 0)} ${view}, at most ${shown(card.most)}`));
    const texts = card.texts.map(([i, side, activation]) => {
      const text = paired ? pairs[["fact", "hallucination"][side]][i] : pairs.completion[i];
      const token = tokensOf(i, paired ? `${["fact", "hall"][side]}_read_token` : "read_token");
      return el("li", { class: ["fact", "hall"][side] }, el("span", { dir: "auto" }, pairs.prompt[i] ? `${short(pairs.prompt[i], 160)} ` : "", ...marked(short(text, 160), token)),
        " ", el("span", { class: "faint" }, shown(activation), ", ", el("a", { href: linkOf(i) }, String(pairs.id[i]))));
    });
    open(`Feature ${feature}, layer ${layer}`,
      el("p", {}, `Fires in ${percent(card.share_fact)} of ${words.facts} and ${percent(card.share_hall)} of ${words.halls}; ${symbol} ${shown(card.dz, true)}, q ${chance(card.q)}.`),
      card.promotes.length ? el("p", {}, "Promotes ", ...card.promotes.flatMap((token) => [el("code", {}, el("bdi", {}, token.trim() ? token : "␣")), " "])) : null,
      home ? el("p", {}, el("a", { href: `${home}/${feature}`, target: "_blank", rel: "noopener noreferrer" }, "Its page on Neuronpedia")) : null,
      el("h3", {}, "Activations where it fires"), chart,
      el("h3", {}, "Fires most in"), el("ol", { class: "fires" }, ...texts),
      el("h3", {}, "By scope"), headed(["scope", words.fact, words.short, symbol], ...data.scopes.map((scope, place) => line(scope, [...sides(card.scopes[place].slice(0, 2)), shown(card.scopes[place][2], true)]))));
    return draw(chart, data.specs.fires, { rows });
  }
