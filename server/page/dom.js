// Elements. Text from outside becomes text nodes and nothing else: no markup is ever parsed here.

const byId = (id) => document.getElementById(id);

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value !== null) element.setAttribute(key, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

function setFigure(id, value, unit) {
  byId(id).replaceChildren(value, " ", make("small", {}, unit));
}

// Show `items` as the children of `parent`. A child whose item has not changed stays as it is, and
// one that is made anew keeps the keyboard's focus.
function showItems(parent, items, keyOf, draw) {
  const old = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  const children = items.map((item) => {
    const key = keyOf(item), drawn = draw(item), before = old.get(key);
    if (before && before.isEqualNode(withKey(drawn, key))) return before;
    return withKey(drawn, key);
  });
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const row = focused && focused.closest("[data-key]");
  const place = row && Array.from(row.querySelectorAll("button")).indexOf(focused);
  if (children.length === parent.children.length && children.every((child, i) => child === parent.children[i])) return;
  parent.replaceChildren(...children);
  if (!row || document.activeElement === focused) return;
  const again = children.find((child) => child.dataset.key === row.dataset.key);
  const target = again && again.querySelectorAll("button")[place];
  if (target) target.focus({ preventScroll: true });
}

function withKey(element, key) { element.dataset.key = key; return element; }

function showTable(id, items, keyOf, cells) {
  showItems(document.querySelector(`#${id} tbody`), items, keyOf,
    (item) => make("tr", {}, ...cells(item)));
  byId(id).hidden = !items.length;
  byId(`${id}-empty`).hidden = Boolean(items.length);
}

const cell = (...children) => make("td", {}, ...children);
// A name breaks after its slashes, where it must.
const nameCell = (name) => make("td", { class: "name" },
  ...name.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]));
const extraCell = (...children) => make("td", { class: "n extra" }, ...children);
const numberCell = (...children) => make("td", { class: "n" }, ...children);

// A line over a soft area; `label` says in words what it shows.
function sparkline(values, top, label) {
  const space = "http://www.w3.org/2000/svg", width = 120, height = 30;
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", label);
  const points = values.map((value, i) => {
    const x = values.length > 1 ? (i / (values.length - 1)) * width : 0;
    return `${x.toFixed(1)},${(height - 1 - (top ? value / top : 0) * (height - 2)).toFixed(1)}`;
  });
  if (points.length > 1) {
    for (const [kind, shape] of [["area", "polygon"], ["line", "polyline"]]) {
      const element = document.createElementNS(space, shape);
      const closed = kind === "area" ? [`0,${height}`, ...points, `${width},${height}`] : points;
      element.setAttribute("points", closed.join(" "));
      element.setAttribute("class", kind);
      drawing.append(element);
    }
  }
  return drawing;
}
