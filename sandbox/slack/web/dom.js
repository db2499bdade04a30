// Elements without HTML strings: text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

// el("button.primary", {type: "button", onclick: f}, "Go") - children are nodes, texts, or lists of them; null and false are left out.
export function el(name, given = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "disabled" || key === "hidden") node[key] = value;
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  return put(node, ...children);
}

export function put(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

export function fill(node, ...children) {
  node.replaceChildren();
  return put(node, ...children);
}

export function svg(tag, given = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(given)) node.setAttribute(key, String(value));
  for (const child of children) node.append(child);
  return node;
}

// A drawing from [tag, attributes] pairs.
export function drawing(parts, { size = 20, box = 20, label = "", className = "" } = {}) {
  const node = svg("svg", { viewBox: `0 0 ${box} ${box}`, width: size, height: size, class: className });
  if (label) {
    node.setAttribute("role", "img");
    node.setAttribute("aria-label", label);
  } else {
    node.setAttribute("aria-hidden", "true");
  }
  for (const [tag, given] of parts) node.append(svg(tag, given));
  return node;
}

// Make the children of a list equal to `items` ({key, same, make}), touching only what changed.
export function sync(list, items) {
  const present = new Map([...list.children].map((node) => [node.dataset.key, node]));
  let at = list.firstChild;
  for (const { key, same, make } of items) {
    let node = present.get(key);
    present.delete(key);
    if (!node || node.same !== same) {
      const fresh = make();
      fresh.dataset.key = key;
      fresh.same = same;
      if (node) {
        if (node === at) at = fresh;
        node.replaceWith(fresh);
      }
      node = fresh;
    }
    if (node === at) at = at.nextSibling;
    else list.insertBefore(node, at);
  }
  for (const node of present.values()) node.remove();
}
