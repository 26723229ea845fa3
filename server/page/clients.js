// What clients need to use this mirror, ready to be pasted. `upstreams` are the configured ones.

const quote = (text) => JSON.stringify(text);

const CLIENTS = {
  "dockerd": ({ url }) => [{
    path: "/etc/docker/daemon.json", note: "Mirrors Docker Hub only. Then: systemctl reload docker",
    text: `{${quote("registry-mirrors")}: [${quote(url)}]}\n`,
  }],
  "containerd": ({ url, upstreams }) => upstreams.map((upstream) => ({
    path: `/etc/containerd/certs.d/${upstream.name}/hosts.toml`,
    text: `server = ${quote(upstream.url)}\n\n[host.${quote(url)}]\n  capabilities = ["pull", "resolve"]\n`,
  })),
  "podman, buildah, skopeo, CRI-O": ({ address, isPlain, upstreams }) => [{
    path: "/etc/containers/registries.conf",
    text: upstreams.map((upstream) => [
      "[[registry]]", `prefix = ${quote(upstream.name)}`, `location = ${quote(upstream.name)}`, "",
      "[[registry.mirror]]", `location = ${quote(`${address}/${upstream.name}`)}`,
      ...(isPlain ? ["insecure = true"] : []), "",
    ].join("\n")).join("\n"),
  }],
  "BuildKit": ({ address, isPlain, upstreams }) => [{
    path: "buildkitd.toml",
    text: [
      ...upstreams.flatMap((upstream) => [
        `[registry.${quote(upstream.name)}]`, `  mirrors = [${quote(address)}]`, ""]),
      ...(isPlain ? [`[registry.${quote(address)}]`, "  http = true", ""] : []),
    ].join("\n"),
  }],
  "k3s": ({ url, upstreams }) => [{
    path: "/etc/rancher/k3s/registries.yaml",
    text: ["mirrors:", ...upstreams.flatMap((upstream) => [
      `  ${quote(upstream.name)}:`, `    endpoint: [${quote(url)}]`]), ""].join("\n"),
  }],
};

// The mirror's port, at the name by which the browser reaches this page: where the mirror listens
// on all addresses, nobody here knows its name better.
function guessAddress(clientsAt) {
  const found = clientsAt.find((each) => /^https?:/.test(each));
  if (!found) return { scheme: "http", address: location.host };
  const listens = new URL(found);
  const isEverywhere = ["0.0.0.0", "[::]"].includes(listens.hostname);
  const host = isEverywhere ? location.hostname : listens.hostname;
  const port = listens.port || (listens.protocol === "https:" ? "443" : "80");
  return { scheme: listens.protocol.slice(0, -1), address: `${host}:${port}` };
}

let recipeDrawn = "";

function showRecipe(facts) {
  const { scheme, address: guessed } = guessAddress(facts.server.clients_at);
  const field = byId("address");
  if (!field.value && document.activeElement !== field) field.value = guessed;
  const address = field.value.trim().replace(/^https?:\/\//, "").replace(/\/+$/, "");
  const drawn = JSON.stringify([byId("client").value, scheme, address, facts.upstreams.map((each) => [each.name, each.url])]);
  if (drawn === recipeDrawn) return;
  recipeDrawn = drawn;
  const files = CLIENTS[byId("client").value](
    { address, url: `${scheme}://${address}`, isPlain: scheme === "http", upstreams: facts.upstreams });
  byId("recipe").replaceChildren(...files.map(showFile));
}

function showFile(file) {
  const text = make("pre", { tabindex: "0", "aria-label": file.path }, file.text);
  const copy = make("button", { type: "button", class: "quiet", "aria-label": `Copy ${file.path}` }, "Copy");
  copy.addEventListener("click", () => copyText(text, file.path));
  return make("div", { class: "file" },
    make("div", { class: "title" }, make("code", {}, file.path), copy), text,
    ...(file.note ? [make("p", { class: "muted" }, file.note)] : []));
}

// The clipboard is only for pages from a secure origin; selecting works everywhere.
async function copyText(element, path) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    setText("copied", `Copied ${path}`);
  } catch {
    getSelection().selectAllChildren(element);
    setText("copied", document.execCommand("copy") ? `Copied ${path}` : "Selected: copy it by the keyboard");
  }
}
