  // ---- the list of items: one page of rows in the document at a time, its choices in the page's address
  const everything = [...Array(count).keys()];
  const list = { found: everything, page: 0, key: "", down: true };
  const SIDES = paired
    ? [["", "any difference"], ["up", `higher in the ${words.hall}`], ["down", `lower in the ${words.hall}`]]
    : [["", "true and false"], ["fact", "true"], ["hall", "false"]];
  let searchable = null;

  const linkOf = (i) => `#${words.item}/${encodeURIComponent(pairs.id[i])}`;
  const metricOf = () => metricNamed.get(byId("pair-metric") ? byId("pair-metric").value : "");
  function columns() {
    const metric = metricOf();
    if (!paired) {
      const prompts = pairs.prompt.some(Boolean);
      const all = [["id", (i) => pairs.id[i], ""], ["domain", (i) => pairs.domain[i], "text"], ["label", labelOf, "text"]];
      if (prompts) all.push(["prompt", (i) => pairs.prompt[i], "text"]);
      all.push([prompts ? "completion" : "text", (i) => pairs.completion[i], "text"]);
      if (pairs.tokens.text_tokens) all.push(["tokens", (i) => pairs.tokens.text_tokens[i], "number"]);
      if (metric) all.push(["value", (i) => valueOf(metric, i), "number"]);
      if (Object.keys(pairs.carried).length) all.push(["carried", (i) => carriedBy(i).join("; "), "text"]);
      return all;
    }
    const all = [
      ["pair", (i) => pairs.id[i], ""], ["domain", (i) => pairs.domain[i], "text"], ["prompt", (i) => pairs.prompt[i], "text"],
      ["fact", (i) => pairs.fact[i], "text"], ["hallucination", (i) => pairs.hallucination[i], "text"],
    ];
    if (metric) all.push(["value, fact", (i) => metric.fact[i], "number"], ["value, halluc.", (i) => metric.hall[i], "number"], ["difference", (i) => diffOf(metric, i), "number"]);
    return all;
  }
  function ofScope(scope) {
    if (!scope || scope === "pooled") return () => true;
    const [column, value] = scope.includes("=") ? [columnOf(scope), scope.slice(scope.indexOf("=") + 1)] : ["domain", scope];
    const own = { domain: pairs.domain, complexity: pairs.complexity, group: pairs.group };
    // A column of the run's own, knows say, is not carried by the data: its values are in the tables only.
    const values = Object.hasOwn(own, column) ? own[column] : Object.hasOwn(pairs.carried, column) ? pairs.carried[column] : null;
    return (i) => values !== null && (missing(values[i]) ? "null" : String(values[i])) === value;
  }
  function onSide(side) {
    const metric = metricOf();
    if (!side || !metric) return () => true;
    if (!paired) return (i) => ["fact", "hall"][sideOf(i)] === side;
    return (i) => (side === "up" ? diffOf(metric, i) > 0 : !missing(diffOf(metric, i)) && diffOf(metric, i) < 0);
  }
  // Without another order the largest difference comes first; of texts, the value farthest from the middle of both labels.
  function sizes() {
    const metric = metricOf();
    if (!metric) return () => null;
    if (paired) return (i) => (missing(diffOf(metric, i)) ? null : Math.abs(diffOf(metric, i)));
    const means = [metric.fact, metric.hall].map((values) => values.filter((value) => !missing(value))).map((values) => values.reduce((a, b) => a + b, 0) / values.length);
    const middle = means.every(Number.isFinite) ? (means[0] + means[1]) / 2 : 0;
    return (i) => (missing(valueOf(metric, i)) ? null : Math.abs(valueOf(metric, i) - middle));
  }
  function find() {
    const asked = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    searchable ??= pairs.id.map((id, i) => [id, pairs.domain[i], pairs.prompt[i], ...(paired ? [pairs.fact[i], pairs.hallucination[i]] : [labelOf(i), pairs.completion[i]]),
      ...Object.values(pairs.carried).map((values) => values[i])].join("\n").toLowerCase());
    const [inScope, inSide] = [ofScope(byId("pair-scope").value), onSide(byId("pair-side").value)];
    const column = columns().find(([name]) => name === list.key);
    const get = column ? column[1] : sizes();
    const sign = list.down ? -1 : 1;
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const keys = everything.map(get);
    list.found = everything.filter((i) => inScope(i) && inSide(i) && asked.every((word) => searchable[i].includes(word))).sort((a, b) => {
      const [x, y] = [keys[a], keys[b]];
      if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // undefined last, either way
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : compare(x, y)) || a - b;
    });
    rows();
  }
  function sort(key) {
    list.down = list.key === key ? !list.down : false;
    list.key = key;
    list.page = 0;
    find();
    remember();
  }
  function rows() {
    const all = columns();
    const heads = all.map(([name]) => {
      const on = list.key === name;
      const head = el("th", { scope: "col", "aria-sort": on ? (list.down ? "descending" : "ascending") : "none" },
        el("button", { type: "button", onclick: () => { sort(name); focusHead(name); } }, name + (on ? (list.down ? " ▾" : " ▴") : "")));
      head.dataset.key = name;
      return head;
    });
    byId("pair-table").tHead.replaceChildren(el("tr", {}, ...heads));
    const pages = Math.max(1, Math.ceil(list.found.length / PAGE));
    list.page = Math.min(Math.max(0, list.page), pages - 1);
    const visible = list.found.slice(list.page * PAGE, (list.page + 1) * PAGE);
    byId("pair-table").tBodies[0].replaceChildren(...visible.map((i) => {
      const cells = all.map(([name, get, kind], place) => {
        const value = get(i);
        // On a phone a row is a card, and each cell names itself.
        if (!place) return el("td", { "data-name": name }, el("a", { class: "open", href: linkOf(i) }, el("bdi", {}, String(value))));
        return el("td", { class: kind, "data-name": name, dir: kind === "text" ? "auto" : null }, kind === "number" ? shown(value) : short(missing(value) ? "-" : String(value), 160));
      });
      return el("tr", {}, ...cells);
    }));
    const number = count.toLocaleString("en");
    say("found", list.found.length === count ? `${number} ${words.items}` : `${list.found.length.toLocaleString("en")} of ${number} ${words.items}`);
    say("page", `page ${list.page + 1} of ${pages}`);
    byId("previous").disabled = list.page === 0;
    byId("next").disabled = list.page >= pages - 1;
  }
  const focusHead = (name) => byId("pair-table").tHead.querySelector(`[data-key="${CSS.escape(name)}"] button`).focus();

  // ---- the page's address: #pair/ID, #feature/LAYER/INDEX, #pairs?CHOICES
  const CHOICES = { q: "search", of: "pair-scope", metric: "pair-metric", side: "pair-side" };
  const firstOf = { q: "", of: "pooled", metric: data.first || "", side: "" };
  function choices() {
    const made = new URLSearchParams();
    for (const [name, id] of Object.entries(CHOICES)) if (byId(id) && byId(id).value !== firstOf[name]) made.set(name, byId(id).value);
    if (list.key) made.set("sort", `${list.down ? "-" : ""}${list.key}`);
    if (list.page) made.set("page", String(list.page + 1));
    return made.size ? `#pairs?${made}` : "";
  }
  function remember() {
    try {
      history.replaceState(null, "", choices() || `${location.pathname}${location.search}`);
    } catch { /* a browser that forbids it to a page from a file: the list works, its address does not change */ }
  }
  function recall(text) {
    const made = new URLSearchParams(text);
    for (const [name, id] of Object.entries(CHOICES)) {
      if (!byId(id)) continue;
      byId(id).value = made.get(name) ?? firstOf[name];
      if (byId(id).value === "" && name !== "q") byId(id).value = firstOf[name]; // no such choice in this run
    }
    const order = made.get("sort") || "";
    Object.assign(list, { key: order.replace(/^-/, ""), down: !order || order.startsWith("-"), page: (Number.parseInt(made.get("page"), 10) || 1) - 1 });
    find();
  }
  function follow(link) {
    if (location.hash === link) route();
    else location.hash = link;
  }
  function route() {
    const [kind, ...parts] = location.hash.slice(1).split("/");
    let names;
    try { names = parts.map(decodeURIComponent); } catch { names = parts; }
    if (kind === words.item && parts.length) {
      const i = pairs.id.map(String).indexOf(names.join("/"));
      if (i >= 0) openOne(i);
      else open(names.join("/"), el("p", {}, `This page holds no ${words.item} of that name.`));
    } else if (kind === "feature" && parts.length === 2) openFeature(Number(parts[0]), Number(parts[1]));
    else {
      if (byId("story").open) byId("story").close();
      if (location.hash.startsWith("#pairs?")) {
        recall(location.hash.slice("#pairs?".length));
        byId("pairs").scrollIntoView();
      }
    }
  }
