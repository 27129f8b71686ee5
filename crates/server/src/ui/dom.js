// Elements as plain values, and what makes a part of the page equal to them. Text never becomes markup: all of it goes in as text nodes and
// attributes. Elements that stay keep their focus.

const SVG = "http://www.w3.org/2000/svg";

/// An element: its tag, attributes (`key` tells it among its siblings; functions are handlers), and children.
export function h(tag, attributes, ...children) {
  const {key = null, ...rest} = attributes ?? {};
  return {tag, key, attributes: rest, children};
}

const visible = children => children.flat(Infinity).filter(child => child != null && child !== false);

/// Makes the children of `parent` those.
export function patch(parent, ...children) {
  const wanted = visible(children);
  const keys = new Set(wanted.map(child => child.key).filter(key => key != null));
  const known = new Map();
  for (const node of [...parent.childNodes]) {
    const key = node.vorrangKey;
    if (key == null) continue;
    // Before all else: those that stay need not be moved then, and what is moved loses the focus.
    if (keys.has(key)) known.set(key, node); else node.remove();
  }
  let at = parent.firstChild;
  for (const child of wanted) {
    const found = child.key == null ? at : known.get(child.key);
    let node = found;
    if (!fits(found, child)) {
      node = created(child, parent);
      if (child.key == null && found && found.vorrangKey == null) { found.replaceWith(node); at = node; } else parent.insertBefore(node, at);
    } else if (found !== at) parent.insertBefore(found, at);
    update(node, child);
    if (node === at) at = at.nextSibling;
  }
  while (at) { const next = at.nextSibling; at.remove(); at = next; }
}

const isText = child => typeof child !== "object";

function fits(node, child) {
  if (!node) return false;
  if (isText(child)) return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === child.tag && (node.vorrangKey ?? null) === child.key;
}

function created(child, parent) {
  if (isText(child)) return document.createTextNode("");
  const svg = child.tag === "svg" || (parent.namespaceURI === SVG && parent.localName !== "foreignObject");
  const node = svg ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node.vorrangKey = child.key;
  return node;
}

function update(node, child) {
  if (isText(child)) {
    const text = String(child);
    if (node.data !== text) node.data = text;
    return;
  }
  const before = node.vorrangAttributes ?? {};
  for (const name of Object.keys(before)) if (!(name in child.attributes)) set(node, name, null);
  for (const [name, value] of Object.entries(child.attributes)) if (before[name] !== value) set(node, name, value);
  node.vorrangAttributes = child.attributes;
  patch(node, child.children);
}

function set(node, name, value) {
  // A handler is a property, and never a string.
  if (name.startsWith("on")) node[name] = typeof value === "function" ? value : null;
  else if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

/// What may be wider than the screen: it scrolls by itself, also by keyboard.
export const scroll = (name, child) => h("div", {key: name, class: "scroll", tabindex: 0, role: "region", "aria-label": name}, child);

/// A table with a caption, whose rows become blocks on a narrow screen. The roles are written out: a table that is shown otherwise would
/// lose them. Columns: `{name, left, show(row)}`.
export function table(caption, columns, rows, {key, empty = "None.", quiet = false} = {}) {
  const head = h("tr", {role: "row"}, columns.map(column => h("th", {scope: "col", role: "columnheader", class: column.left ? "left" : ""}, column.name)));
  const cells = one => columns.map((column, i) => {
    const shown = column.show(one);
    const attributes = {"data-name": column.name, class: column.left ? "left" : ""};
    return i === 0 ? h("th", {...attributes, scope: "row", role: "rowheader"}, shown) : h("td", {...attributes, role: "cell"}, shown);
  });
  const body = rows.length
    ? rows.map((one, i) => h("tr", {key: key ? key(one) : i, role: "row"}, cells(one)))
    : h("tr", {key: "", role: "row", class: "empty"}, h("td", {role: "cell", colspan: columns.length, class: "left"}, empty));
  return h("table", {role: "table", class: columns.length > 5 ? "wide" : null},
    h("caption", {class: quiet ? "hidden" : ""}, caption),
    h("thead", {role: "rowgroup"}, head), h("tbody", {role: "rowgroup"}, body));
}
