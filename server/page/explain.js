// The search box: what a tag or digest is, and what will become of it.

const EXPLAINED = [
  ["Digest", (known) => known.digest],
  ["Kind", (known) => [known.kind, known.media_type].filter(Boolean).join(", ")],
  ["Stored", (known) => (known.is_stored ? `yes, ${bytes(known.size_bytes)}` : "no")],
  ["What will become of it", (known) => known.fate],
  ["Pinned by", (known) => known.pins],
  ["Expires, if not used", (known) => known.expires_at && moment(known.expires_at)],
  ["Fetched", (known) => known.stored_at && moment(known.stored_at)],
  ["Last used", (known) => known.used_at && moment(known.used_at)],
  ["Verified", (known) => known.verified_at && moment(known.verified_at)],
  ["File", (known) => known.is_stored && known.path],
];

function explain(query) {
  byId("query").value = query;
  return ask(query);
}

async function ask(query) {
  const body = byId("answer-body");
  byId("answer").hidden = false;
  setText("answer-title", query);
  body.replaceChildren(make("p", { class: "muted" }, "Looking it up…"));
  byId("answer-title").focus();
  try {
    const response = await request(`api/v1/explain?q=${encodeURIComponent(query)}`);
    const known = await response.json();
    if (byId("answer-title").textContent !== query) return;
    body.replaceChildren(...(response.ok ? drawExplained(known) : [make("p", { class: "bad" }, known.error)]));
  } catch {
    body.replaceChildren(make("p", { class: "bad" }, "The mirror cannot be reached."));
  }
}

function drawExplained(known) {
  const list = make("dl", {});
  for (const [title, read] of EXPLAINED) {
    const value = read(known);
    if (value) list.append(make("dt", {}, title), make("dd", {}, value));
  }
  return [
    list,
    ...drawPart("Tags that mean it", known.tags, ["Tag", "Checked", "A pull"], (each) => [
      nameCell(each.tag), cell(moment(each.checked_at)), cell(each.freshness)]),
    ...drawPart("Repositories that know it", known.links, ["Repository", "As", "Known by"], (each) => [
      nameCell(each.repository), cell(each.kind), cell(each.state)]),
    ...drawPart("What it names", known.named, ["Content", "Size", "Stored", "Media type"], (each) => [
      cell(digestButton(each.digest)), numberCell(bytes(each.size_bytes)), cell(each.is_stored ? "yes" : "no"),
      nameCell(each.media_type)]),
  ];
}

function drawPart(title, items, columns, cells) {
  if (!items.length) return [];
  const head = make("tr", {}, ...columns.map((column) => make("th", { scope: "col", class: column === "Size" ? "n" : null }, column)));
  const table = make("table", {}, make("thead", {}, head),
    make("tbody", {}, ...items.map((item) => make("tr", {}, ...cells(item)))));
  return [make("h3", {}, title), make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table)];
}

// The listener is on the document, so that rows compare as nodes (see showItems).
function digestButton(digest) {
  return make("button", { type: "button", class: "link code", title: digest, "data-explain": digest,
    "aria-label": `Explain ${shortDigest(digest)}` }, shortDigest(digest));
}
