// Asks for the facts every two seconds and shows them; goes on by itself after a restart.

const INTERVAL_MS = 2000, PATIENCE_MS = 10000, TOKEN_KEY = "moorage-token";
let facts = null, before = null, unreachableSince = null;

function request(path) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return fetch(path, {
    cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS),
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
}

async function refresh() {
  try {
    const response = await request("api/v1/status");
    const answer = await response.json();
    if (response.ok) showFacts(answer);
    else if (response.status === 401 || response.status === 403) showLogin(response.status, answer.error);
    else showTrouble("starting", answer.error);
  } catch {
    unreachableSince = unreachableSince || Date.now() / 1000;
    showTrouble("unreachable", `Not reachable since ${clock(unreachableSince)}. Trying again.`);
  }
}

async function keepRefreshing() {
  if (!document.hidden) await refresh();
  setTimeout(keepRefreshing, INTERVAL_MS);
}

function showState(state, message) {
  setText("state", state);
  byId("state").dataset.state = state;
  setText("banner", message);
  byId("banner").hidden = !message;
  document.title = state === "ready" ? "Moorage" : `${state} – Moorage`;
}

function showTrouble(state, message) {
  byId("login").hidden = true;
  showState(state, message);
}

function showLogin(status, why) {
  showState("locked", "");
  setText("login-why", why);
  for (const element of byId("login").elements) element.hidden = status === 403;
  byId("login").querySelector("label").hidden = status === 403;
  byId("login").hidden = false;
}

function showFacts(found) {
  before = facts && facts.server.pid === found.server.pid ? facts : null;
  facts = found;
  unreachableSince = null;
  byId("login").hidden = true;
  byId("main").dataset.known = "yes";
  showServer(); showTraffic(); showDisk(); showFills(); showUpstreams(); showErrors();
  showLists(); showUpkeep(); showRecipe(facts);
}

function showServer() {
  const server = facts.server;
  showState(server.state, server.state === "draining"
    ? `The server stops: ${count(server.connection_count)} connections left.` : "");
  setText("about", `${server.version}, up ${span(server.now - server.started_at)}, `
    + `${count(server.connection_count)} connections, process ${server.pid}`);
  setText("updated", `Updated ${clock(server.now)}. Data directory: ${server.data_directory}`);
}

function rates(samples) {
  return samples.slice(1).map((sample, i) => {
    const earlier = samples[i], seconds = Math.max(sample.at - earlier.at, 0.001);
    const cached = sample.cached_count - earlier.cached_count;
    return {
      requests: Math.max(0, sample.request_count - earlier.request_count) / seconds,
      sent: Math.max(0, sample.sent_bytes - earlier.sent_bytes) / seconds,
      hits: cached > 0 ? (sample.hit_count - earlier.hit_count) / cached : null,
    };
  });
}

function showTraffic() {
  const samples = facts.samples, traffic = facts.traffic;
  const latest = samples[samples.length - 1];
  const history = rates(samples.slice(0, -1));
  const previous = before ? before.samples[before.samples.length - 1] : samples[samples.length - 2] || latest;
  const now = rates([previous, latest])[0];
  setFigure("requests", perSecond(now.requests), "per second");
  showLine("requests", history.map((each) => each.requests), (top) => `${perSecond(top)} a second`);
  setText("requests-note", `${count(traffic.request_count)} since the start`);
  setFigure("sent", bytes(now.sent), "per second");
  showLine("sent", history.map((each) => each.sent), (top) => `${bytes(top)} a second`);
  setText("sent-note", `${bytes(traffic.sent_bytes)} since the start`);
  setFigure("hits", share(traffic.hit_share), "of requests");
  const shares = history.map((each) => each.hits).filter((each) => each !== null);
  byId("hits-line").replaceChildren(sparkline(shares, 1, "Share of hits over the last ten minutes"));
  setText("hits-note", traffic.hit_share === null ? "Nothing was asked for yet"
    : `${share(traffic.hit_bytes_share)} of bytes; half within ${milliseconds(traffic.hit_p50_s)}, `
      + `99\u00a0% within ${milliseconds(traffic.hit_p99_s)}`);
}

function showLine(id, values, write) {
  const top = Math.max(0, ...values);
  byId(`${id}-line`).replaceChildren(sparkline(values, top, `The last ten minutes, at most ${write(top)}`));
}

function showDisk() {
  const space = facts.space, limit = Math.max(1, space.limit_bytes);
  const percent = (size) => Math.min(100, (size / limit) * 100);
  const used = space.stored_bytes + space.reserved_bytes;
  setFigure("disk", bytes(space.stored_bytes), `of ${bytes(space.limit_bytes)}`);
  byId("budget-stored").style.width = `${percent(space.stored_bytes)}%`;
  byId("budget-reserved").style.width = `${Math.min(percent(space.reserved_bytes), 100 - percent(space.stored_bytes))}%`;
  byId("budget-low").style.left = `${percent(space.low_bytes)}%`;
  byId("budget-high").style.left = `${percent(space.high_bytes)}%`;
  byId("budget").dataset.level = used > space.high_bytes ? "high" : "normal";
  byId("budget").setAttribute("aria-valuenow", percent(used).toFixed(1));
  setText("disk-note", [
    `${percent(space.stored_bytes).toFixed(1)}\u00a0% used`,
    space.reserved_bytes ? `${bytes(space.reserved_bytes)} reserved` : "",
    space.quarantine_bytes ? `${bytes(space.quarantine_bytes)} in quarantine` : "",
    `evicts from ${percent(space.high_bytes).toFixed(0)}\u00a0% to ${percent(space.low_bytes).toFixed(0)}\u00a0%`,
  ].filter(Boolean).join(", "));
}

function fillRate(fill) {
  const earlier = before && before.fills.find((each) => each.digest === fill.digest && each.begun_at === fill.begun_at);
  const since = earlier ? before.server.now : fill.begun_at;
  const written = fill.written_bytes - (earlier ? earlier.written_bytes : 0);
  return Math.max(0, written) / Math.max(facts.server.now - since, 0.001);
}

function showFills() {
  setText("fills-count", facts.fills.length ? count(facts.fills.length) : "");
  showTable("fills", facts.fills, (fill) => fill.digest + fill.begun_at, (fill) => {
    const size = fill.size_bytes === null ? "?" : bytes(fill.size_bytes);
    const bar = make("progress", { "aria-label": `Progress of ${shortDigest(fill.digest)}`,
      max: fill.size_bytes, value: fill.size_bytes === null ? null : fill.written_bytes });
    const note = fill.is_stored ? "" : " (not stored)";
    return [cell(digestButton(fill.digest)), nameCell(fill.repository),
      cell(make("div", { class: "progress" }, bar, `${bytes(fill.written_bytes)} of ${size}${note}`)),
      numberCell(`${bytes(fillRate(fill))}/s`), numberCell(count(fill.reader_count))];
  });
}

function showUpstreams() {
  showItems(byId("upstreams"), facts.upstreams, (each) => each.name, (each) => {
    const troubles = [
      ...each.breakers.map((one) => ["bad", `${one.lane}: not asked for ${span(one.wait_s)}, since it failed: ${one.cause}`]),
      ...each.pauses.map((one) => ["warn", `${one.kind} requests are rate-limited for ${span(one.left_s)}`]),
    ];
    const limit = each.remaining === null ? [] : [make("span", { class: each.remaining ? "" : "bad" },
      `${count(each.remaining)} of ${each.limit === null ? "?" : count(each.limit)} pulls left`
      + (each.window_s ? ` in ${span(each.window_s)}` : ""))];
    return make("li", {},
      make("div", { class: "row" }, make("strong", {}, each.name),
        make("span", { class: troubles.length ? troubles[0][0] : "good" }, troubles.length ? "in trouble" : "healthy")),
      make("div", { class: "row muted" }, make("span", {}, each.url),
        make("span", {}, `${count(each.request_count)} requests, ${count(each.billable_count)} billable`), ...limit),
      ...troubles.map(([kind, text]) => make("p", { class: kind }, text)));
  });
}

function showErrors() {
  const now = facts.server.now, failures = facts.errors.filter((each) => each.kind === "failure");
  setText("errors-count", failures.length ? `${count(failures.reduce((sum, each) => sum + each.count, 0))} failures` : "");
  showItems(byId("errors"), facts.errors, (each) => [each.kind, each.status, each.repository].join(" "), (each) =>
    make("li", {},
      make("div", { class: "row" },
        make("span", {}, make("strong", { class: each.kind === "failure" ? "bad" : "" }, each.status || "cut"), ` ${each.repository}`),
        make("span", { class: "muted" }, `${ago(each.last_at, now)}${each.count > 1 ? `, ${count(each.count)} times` : ""}`)),
      make("p", { class: "muted" }, each.cause)));
  byId("errors-empty").hidden = Boolean(facts.errors.length);
}

function showLists() {
  const survey = facts.survey, now = facts.server.now;
  setText("largest-empty", survey ? "Nothing is stored." : "The index is being read.");
  setText("victims-empty", survey ? "Nothing may go." : "The index is being read.");
  showTable("pulled", facts.pulled, (each) => each.repository, (each) => [nameCell(each.repository),
    numberCell(count(each.manifest_count)), extraCell(count(each.blob_count)), numberCell(bytes(each.sent_bytes))]);
  showTable("largest", survey ? survey.largest : [], (each) => each.repository, (each) => [nameCell(each.repository),
    extraCell(count(each.blob_count)), numberCell(bytes(each.stored_bytes)), numberCell(bytes(each.own_bytes))]);
  showTable("victims", survey ? survey.victims : [], (each) => each.digest, (each) => [cell(digestButton(each.digest)),
    numberCell(bytes(each.disk_bytes)), extraCell(ago(each.used_at, now)),
    cell(each.needed_bytes ? `after ${bytes(each.needed_bytes)} more` : `now (${each.reason})`)]);
}

function showUpkeep() {
  const { scrub, reconcile, survey, server } = facts;
  const checked = `${count(scrub.checked_count)} blobs, ${bytes(scrub.checked_bytes)}`;
  const lines = [
    ["Verification", describeScrub(scrub, checked, server.now)],
    ["Found damaged", count(scrub.damaged_count)],
    ["Index and files", reconcile.is_running ? `being compared: ${count(reconcile.file_count)} files`
      : reconcile.finished_at === null ? "to be compared" : `agree since ${ago(reconcile.finished_at, server.now)}: `
        + `${count(reconcile.file_count)} files, ${count(reconcile.adopted_count)} adopted, ${count(reconcile.dropped_count)} dropped`],
    ["Foreign files", count(reconcile.foreign_count)],
    ["In the index", survey ? `${count(survey.blob_count)} blobs of ${count(survey.repository_count)} repositories` : "being read"],
  ];
  byId("upkeep").replaceChildren(...lines.flatMap(([title, text]) => [make("dt", {}, title), make("dd", {}, text)]));
}

function describeScrub(scrub, checked, now) {
  if (!scrub.is_on) return "off";
  if (scrub.is_running) return `under way: ${checked}`;
  if (scrub.finished_at === null) return "begins soon";
  const when = ago(scrub.finished_at, now);
  return scrub.checked_count ? `${checked}, ended ${when}` : `nothing was due when it looked, ${when}`;
}

byId("search").addEventListener("submit", (event) => { event.preventDefault(); ask(byId("query").value.trim()); });
byId("answer-close").addEventListener("click", () => { byId("answer").hidden = true; byId("query").focus(); });
byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, byId("token").value.trim());
  byId("token").value = "";
  refresh();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-explain]");
  if (button) explain(button.dataset.explain);
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
byId("client").append(...Object.keys(CLIENTS).map((name) => make("option", {}, name)));
for (const id of ["client", "address"]) byId(id).addEventListener("input", () => facts && showRecipe(facts));
keepRefreshing();
