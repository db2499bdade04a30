// Block Kit as nodes. `context` is the surface: {press(block, element, given, occurrence), values, disabled}.

import { el, put, svg } from "./dom.js";
import { emoji, icon, status } from "./icons.js";
import { date, inline, link, known, mention, mrkdwn, plain, text, words } from "./text.js";

export function blocks(list, context) {
  return el("div.blocks", {}, (list || []).map((block) => draw(block, context)));
}

function draw(block, context) {
  const make = BLOCKS[block.type];
  const node = make ? make(block, context) : el("p.unsupported", {}, `This page cannot show a ${block.type} block.`);
  node.classList.add("block", `block-${block.type}`);
  if (block.block_id) node.dataset.block = block.block_id;
  return node;
}

const BLOCKS = {
  header: (block) => el("h3", {}, words(block.text)),
  divider: () => el("hr"),
  markdown: (block) => markdown(block.text),
  rich_text: (block) => rich(block),
  image: (block) => el("figure", {}, block.title && el("figcaption", {}, words(block.title)), picture(block)),
  plan: (block) => plan(block),
  task_card: (block) => el("div.plan", {}, el("ol.tasks", {}, task(block))),
  table: (block) => table(block),
  data_table: (block, context) => dataTable(block, context),
  data_visualization: (block) => chart(block),
  actions: (block, context) => el("div", { role: "group" }, block.elements.map((element) => control(block, element, context))),
  context_actions: (block, context) => el("div", { role: "group" }, block.elements.map((element) => control(block, element, context))),
  context: (block) => el("div", {}, block.elements.map((it) => (it.type === "image" ? picture(it) : text(it)))),
  input: (block, context) => input(block, context),
  alert: (block) => alert(block),
  card: (block, context) => card(block, context),
  carousel: (block, context) => el("div", { tabindex: 0, role: "group", "aria-label": "Cards" }, block.elements.map((it) => draw(it, context))),
  container(block, context) {
    const children = block.child_blocks.map((it) => draw(it, context));
    if (!block.is_collapsible) return el("section", {}, block.title && el("h4", {}, words(block.title)), children);
    return el("details", { open: !block.default_collapsed }, el("summary", {}, block.title ? words(block.title) : "Details"), children);
  },
  section(block, context) {
    return el(
      "div", {},
      el("div.section-text", {}, block.text && text(block.text), block.fields && el("div.fields", {}, block.fields.map((it) => el("div.field", {}, text(it))))),
      block.accessory && el("div.accessory", {}, block.accessory.type === "image" ? picture(block.accessory) : control(block, block.accessory, context)),
    );
  },
};

function alert(block) {
  const level = block.level || "default";
  const sign = { warning: "alert", error: "alert", success: "check" }[level] || "info";
  return el(`div.alert-${level}`, { role: level === "error" || level === "warning" ? "alert" : "note" }, el("span.alert-sign", {}, icon(sign, 16)), text(block.text));
}

function card(block, context) {
  return el(
    "article", {},
    block.title && el("h4", {}, text(block.title)),
    block.subtitle && el("p.card-subtitle", {}, text(block.subtitle)),
    block.body && el("div", {}, text(block.body)),
    block.actions && el("div.card-actions", {}, block.actions.map((element) => control(block, element, context))),
  );
}

// Pictures of our own files are shown; the page's policy keeps every other picture out, so it becomes a link.
export function picture(it) {
  if (it.slack_file?.id) return el("img", { src: `files/${encodeURIComponent(it.slack_file.id)}/picture`, alt: it.alt_text, loading: "lazy" });
  return el("span.picture-elsewhere", {}, link(it.image_url || "", it.alt_text || "picture"));
}

// Rich text

export function rich(block) {
  return el("div.rich", {}, block.elements.map(richElement));
}

function richElement(it) {
  switch (it.type) {
    case "rich_text_list": {
      const list = el(it.style === "ordered" ? "ol" : "ul", it.offset ? { start: it.offset + 1 } : {}, it.elements.map((line) => el("li", {}, line.elements.map(richInline))));
      list.classList.add(`indent-${Math.min(it.indent || 0, 4)}`);
      return list;
    }
    case "rich_text_preformatted":
      return el("pre", {}, el("code", {}, it.elements.map(richInline)));
    case "rich_text_quote":
      return el("blockquote", {}, it.elements.map(richInline));
    default:
      return el("div.rich-line", {}, it.elements.map(richInline));
  }
}

function richInline(it) {
  const styled = (node) => {
    for (const [name, tag] of [["code", "code"], ["strike", "s"], ["italic", "em"], ["bold", "strong"]]) if (it.style?.[name]) node = el(tag, {}, node);
    return node;
  };
  switch (it.type) {
    case "text": return styled(lines(it.text));
    case "link": return styled(link(it.url, it.text || it.url));
    case "emoji": return emoji(it.name);
    case "user": return mention(it.user_id);
    case "usergroup": return el("span.mention", {}, `@${known.groups[it.usergroup_id] || it.usergroup_id}`);
    case "channel": return el("span.mention", {}, `#${known.channels.get(it.channel_id)?.name || it.channel_id}`);
    case "broadcast": return el("span.mention.mention-me", {}, `@${it.range}`);
    case "date": return date(it.timestamp, it.format, it.fallback);
    default: return el("span", {}, it.value || "");
  }
}

function lines(value) {
  const box = document.createDocumentFragment();
  value.split("\n").forEach((line, index) => put(box, index ? el("br") : null, plain(line)));
  return box;
}

function markdown(source) {
  const box = el("div.markdown");
  const styled = (line) => inline(line.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/\[([^\]]+)\]\(([^)\s]+)\)/g, "<$2|$1>").replace(/\*\*(.+?)\*\*/g, "*$1*"));
  let list = null;
  for (const line of source.split("\n")) {
    const item = /^\s*[-*]\s+(.*)$/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!item) list = null;
    if (item) {
      if (!list) box.append((list = el("ul")));
      list.append(el("li", {}, styled(item[1])));
    } else if (heading) box.append(el("h4", {}, styled(heading[2])));
    else if (line.trim()) box.append(el("p", {}, styled(line)));
  }
  return box;
}

// Plans

const folded = new Map(); // plan's first task -> whether the reader folded it; survives updates of the message

function plan(block) {
  const states = block.tasks.map((it) => it.status || "pending");
  const whole = states.includes("error") ? "error" : states.includes("in_progress") ? "in_progress" : states.every((it) => it === "complete") ? "complete" : states.includes("complete") ? "" : "pending"; // some skipped: the title says what came of it
  const key = block.tasks[0]?.task_id;
  const done = states.filter((it) => it === "complete").length;
  const box = el(
    "details.plan", { open: !folded.get(key) },
    el("summary", {}, whole && status(whole), el("span.plan-title", {}, plain(block.title)), el("span.plan-count", {}, `${done} of ${states.length}`), el("span.plan-fold", {}, icon("down", 16))),
    el("ol.tasks", {}, block.tasks.map(task)),
  );
  box.addEventListener("toggle", () => folded.set(key, !box.open));
  return box;
}

function task(it) {
  const state = it.status || "pending";
  return el(
    `li.task.task-${state}`, {},
    status(state),
    el(
      "div.task-body", {},
      el("div.task-title", {}, plain(it.title)),
      it.details && el("div.task-details", {}, rich(it.details)),
      it.output && el("div.task-output", {}, rich(it.output)),
      it.sources?.length ? el("div.task-sources", {}, it.sources.map((source) => put(link(source.url, icon("link", 13), source.text)))) : null,
    ),
  );
}

// Tables

function cellNode(cell, tag, align, wraps) {
  const node = el(tag, tag === "th" ? { scope: "col" } : {}, cell.type === "rich_text" ? rich(cell) : plain(cell.text ?? ""));
  if (align) node.classList.add(`align-${align}`);
  if (wraps) node.classList.add("wraps");
  return node;
}

function table(block) {
  const settings = block.column_settings || [];
  const cells = (row, tag) => row.map((cell, column) => cellNode(cell, tag, settings[column]?.align || (cell.type === "raw_number" ? "right" : ""), settings[column]?.is_wrapped));
  const [head, ...rows] = block.rows;
  return el("div", { tabindex: 0, role: "region", "aria-label": "Table" }, el("table", {}, el("thead", {}, el("tr", {}, cells(head, "th"))), el("tbody", {}, rows.map((row) => el("tr", {}, cells(row, "td"))))));
}

function dataTable(block, context) {
  const [head, ...rows] = block.rows;
  const size = block.page_size || 5;
  const offered = rows.flat().filter((cell) => cell.type === "action_cell").flatMap((cell) => cell.elements);
  const view = { page: 0, column: -1, down: false };
  const box = el("div");
  const worth = (cell) => (cell.type === "raw_number" ? cell.value : String(cell.text ?? "").toLowerCase());
  const redraw = () => {
    const sorted = view.column < 0 ? rows : [...rows].sort((a, b) => {
      const [x, y] = [worth(a[view.column]), worth(b[view.column])];
      return (x < y ? -1 : x > y ? 1 : 0) * (view.down ? -1 : 1);
    });
    const pages = Math.max(1, Math.ceil(rows.length / size));
    const titles = head.map((cell, column) => {
      const sort = () => { view.down = view.column === column && !view.down; view.column = column; redraw(); };
      const order = view.column !== column ? "none" : view.down ? "descending" : "ascending";
      return el("th", { scope: "col", "aria-sort": order }, el("button.sort", { type: "button", onclick: sort }, plain(cell.text ?? ""), order === "none" ? null : el("span", { "aria-hidden": "true" }, view.down ? " ↓" : " ↑")));
    });
    const body = sorted.slice(view.page * size, view.page * size + size).map((row) => el("tr", {}, row.map((cell, column) => {
      if (cell.type === "action_cell") return el("td", {}, cell.elements.map((it) => control(block, it, context, offered.filter((o) => o.action_id === it.action_id).indexOf(it))));
      const node = cellNode(cell, column === block.row_header_column_index ? "th" : "td", cell.type === "raw_number" ? "right" : "");
      if (node.tagName === "TH") node.setAttribute("scope", "row");
      return node;
    })));
    const turn = (step) => () => { view.page += step; redraw(); };
    box.replaceChildren();
    put(
      box,
      el("div.table-scroll", { tabindex: 0, role: "region", "aria-label": block.caption }, el("table", {}, el("caption", {}, plain(block.caption)), el("thead", {}, el("tr", {}, titles)), el("tbody", {}, body))),
      pages > 1 && el("div.pager", {}, el("button.button", { type: "button", disabled: view.page === 0, onclick: turn(-1) }, "Previous"), el("span", {}, `Page ${view.page + 1} of ${pages}`), el("button.button", { type: "button", disabled: view.page >= pages - 1, onclick: turn(1) }, "Next")),
    );
  };
  redraw();
  return box;
}

// Charts

function chart(block) {
  const { type, series = [], segments, axis_config: axes = {} } = block.chart;
  if (type === "pie") {
    const whole = segments.reduce((sum, it) => sum + it.value, 0) || 1;
    return el("figure.chart", {}, el("figcaption", {}, plain(block.title)), el("ul.shares", {}, segments.map((it, index) => el("li", {}, el(`span.swatch.hue-${index % 6}`), `${it.label}: ${it.value} (${Math.round((100 * it.value) / whole)} %)`))));
  }
  const [width, height, left, bottom] = [560, 200, 48, 26];
  const values = series.flatMap((it) => it.data.map((point) => point.value));
  const [low, high] = [Math.min(0, ...values), Math.max(...values, 0) || 1];
  const names = axes.categories || series[0]?.data.map((point) => point.label) || [];
  const x = (index) => left + ((index + 0.5) * (width - left - 8)) / Math.max(1, names.length);
  const y = (value) => 10 + ((high - value) * (height - bottom - 10)) / (high - low);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${block.title}: ${series.map((it) => `${it.name} ${it.data.map((p) => `${p.label} ${p.value}`).join(", ")}`).join("; ")}` });
  for (const value of [low, (low + high) / 2, high]) {
    drawn.append(svg("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value), class: "grid" }));
    drawn.append(svg("text", { x: left - 6, y: y(value) + 4, class: "tick tick-y" }, document.createTextNode(Number(value.toPrecision(3)))));
  }
  names.forEach((name, index) => drawn.append(svg("text", { x: x(index), y: height - 8, class: "tick tick-x" }, document.createTextNode(name))));
  series.forEach((it, hue) => {
    const at = (label) => it.data.find((point) => point.label === label)?.value ?? 0;
    if (type === "bar") {
      const wide = Math.min(36, (width - left) / names.length / series.length - 6);
      names.forEach((name, index) => drawn.append(svg("rect", { x: x(index) + (hue - series.length / 2) * wide, y: Math.min(y(at(name)), y(0)), width: wide - 2, height: Math.abs(y(0) - y(at(name))), rx: 2, class: `bar hue-${hue % 6}` })));
    } else {
      drawn.append(svg("polyline", { points: names.map((name, index) => `${x(index)},${y(at(name))}`).join(" "), class: `line hue-${hue % 6}` }));
      names.forEach((name, index) => drawn.append(svg("circle", { cx: x(index), cy: y(at(name)), r: 3, class: `bar hue-${hue % 6}` })));
    }
  });
  return el("figure.chart", {}, el("figcaption", {}, plain(block.title)), drawn, el("ul.shares", {}, series.map((it, index) => el("li", {}, el(`span.swatch.hue-${index % 6}`), it.name))));
}

// Controls

function control(block, element, context, occurrence = 0) {
  const act = async (given, event) => {
    const node = event?.currentTarget;
    if (node) node.disabled = true;
    await context.press(block, element, given, occurrence);
    if (node) node.disabled = false;
  };
  switch (element.type) {
    case "button": {
      const label = words(element.text);
      const style = element.style ? `.button-${element.style}` : "";
      const node = el(`button.button${style}`, { type: "button", "aria-label": element.accessibility_label, onclick: (event) => act(null, event) }, label);
      node.dataset.action = element.action_id;
      if (element.url) {
        const address = link(element.url, ...words(element.text));
        if (address.href) {
          address.className = `button${element.style ? ` button-${element.style}` : ""}`;
          address.addEventListener("click", () => act(null));
          address.dataset.action = element.action_id;
          return address;
        }
      }
      return node;
    }
    case "icon_button":
      return el("button.button", { type: "button", onclick: () => act(null) }, words(element.text));
    case "feedback_buttons":
      return el("span.feedback", {}, ["positive_button", "negative_button"].map((key) => el("button.button", { type: "button", onclick: () => act(element[key].value) }, words(element[key].text))));
    case "overflow":
      return menu(element, act);
    default:
      return field(block, element, context, (given) => act(given));
  }
}

function menu(element, act) {
  const list = el("div.menu", { role: "menu", hidden: true });
  const toggle = el("button.button.button-menu", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": "More actions", onclick: () => show(list.hidden) }, icon("dots", 16));
  const show = (open) => {
    list.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    if (open) list.firstChild?.focus();
  };
  put(list, element.options.map((option) => el("button", { type: "button", role: "menuitem", onclick: () => { show(false); act(option.value); } }, words(option.text))));
  list.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); show(false); toggle.focus(); } });
  return el("span.menu-place", {}, toggle, list);
}

// Inputs

function input(block, context) {
  const id = `input-${block.block_id}`;
  const many = ["checkboxes", "radio_buttons"].includes(block.element.type);
  const label = [words(block.label), block.optional ? el("span.optional", {}, " (optional)") : null];
  const body = field(block, block.element, context, block.dispatch_action ? (given) => context.press(block, block.element, given, 0) : () => {}, id);
  return el(
    many ? "fieldset" : "div", {},
    many ? el("legend", {}, label) : el("label", { for: id }, label),
    body,
    el("p.input-error", { id: `${id}-error`, hidden: true }),
    block.hint && el("p.hint", { id: `${id}-hint` }, words(block.hint)),
  );
}

const chosenText = (option) => (typeof option === "string" ? option : option?.value);

// One element that holds a value; `changed` hears of a choice.
function field(block, element, context, changed, id) {
  const values = context.values;
  const remember = (value) => { values[block.block_id] = value; };
  const begun = values[block.block_id];
  const told = (value) => { remember(value); changed(value); };
  const common = { id, disabled: context.disabled, "aria-describedby": id ? `${id}-error ${id}-hint` : undefined, "aria-label": id ? undefined : element.placeholder?.text || "Choose" };
  const hint = element.placeholder?.text;
  const options = (group) => group.map((option) => ({ value: option.value, text: option.text, description: option.description }));
  switch (element.type) {
    case "static_select": case "users_select": case "channels_select": case "conversations_select": {
      const groups = element.option_groups || [{ options: offered(element) }];
      const initial = begun ?? chosenText(element.initial_option || element.initial_user || element.initial_channel || element.initial_conversation) ?? "";
      const make = (option) => el("option", { value: option.value }, option.text.text);
      const select = el("select", common, el("option", { value: "" }, hint || "Choose an option"), groups.map((group) => (group.label ? el("optgroup", { label: group.label.text }, options(group.options).map(make)) : options(group.options).map(make))));
      select.value = initial;
      select.addEventListener("change", () => told(select.value));
      return el("span.select", {}, select, icon("down", 14));
    }
    case "multi_static_select": case "multi_users_select": case "multi_channels_select": case "multi_conversations_select": case "checkboxes": {
      const chosen = new Set(begun ?? (element.initial_options || element.initial_users || element.initial_channels || element.initial_conversations || []).map(chosenText));
      return el("div.choices", { id, role: "group" }, offered(element).map((option) => choice("checkbox", option, chosen.has(option.value), block, context, (on) => { chosen[on ? "add" : "delete"](option.value); told([...chosen]); })));
    }
    case "radio_buttons": {
      const chosen = begun ?? element.initial_option?.value;
      return el("div.choices", { id, role: "radiogroup" }, element.options.map((option) => choice("radio", option, option.value === chosen, block, context, () => told(option.value))));
    }
    case "datepicker": case "timepicker": case "datetimepicker": {
      const type = { datepicker: "date", timepicker: "time", datetimepicker: "datetime-local" }[element.type];
      const node = el("input", { ...common, type, value: begun ?? element.initial_date ?? element.initial_time ?? "" });
      node.addEventListener("change", () => told(type === "datetime-local" ? String(Math.floor(new Date(node.value) / 1000)) : node.value));
      return node;
    }
    default: {
      const value = begun ?? element.initial_value ?? "";
      const type = { number_input: "text", email_text_input: "email", url_text_input: "url" }[element.type] || "text";
      const node = element.multiline
        ? el("textarea", { ...common, rows: 4, placeholder: hint, maxlength: element.max_length }, "")
        : el("input", { ...common, type, placeholder: hint, maxlength: element.max_length, inputmode: element.type === "number_input" ? "decimal" : undefined, autocomplete: "off" });
      node.value = value;
      node.addEventListener("input", () => remember(node.value));
      node.addEventListener("keydown", (event) => { if (event.key === "Enter" && !element.multiline) changed(node.value); });
      return node;
    }
  }
}

function choice(type, option, checked, block, context, changed) {
  const box = el("input", { type, name: `choice-${block.block_id}`, value: option.value, checked, disabled: context.disabled });
  box.addEventListener("change", () => changed(box.checked));
  return el("label.choice", {}, box, el("span", {}, option.text.type === "mrkdwn" ? mrkdwn(option.text.text) : words(option.text), option.description && el("span.choice-about", {}, words(option.description))));
}

// What a select offers: its own options, or the people and channels there are.
function offered(element) {
  if (element.options) return element.options;
  if (element.option_groups) return element.option_groups.flatMap((group) => group.options);
  if (element.type.includes("users")) return [...known.people.values()].map((it) => ({ value: it.id, text: { type: "plain_text", text: it.name } }));
  return [...known.channels.values()].filter((it) => !it.im).map((it) => ({ value: it.id, text: { type: "plain_text", text: `#${it.name}` } }));
}
