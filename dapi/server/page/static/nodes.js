// The table of the nodes: one row each, of which only the cells that change are touched.

import { ago, make, milliseconds, number, say, span } from "./words.js";

const SHOWN_AT_ONCE = 200;

const MARKS = { open: "●", connecting: "◌", waiting: "◔", refused: "✕", stopped: "○" };

export class NodeTable {
  /** ``act`` is called with a node's id and the action that was asked for. */
  constructor(act) {
    this.act = act;
    this.body = document.querySelector("#nodes tbody");
    this.filter = document.querySelector("#nodes-filter");
    this.order = document.querySelector("#nodes-sort");
    this.more = document.querySelector("#nodes-more");
    this.rows = new Map();
    this.nodes = {};
    this.troubled = new Set();
    this.isWhole = false;
    this.filter.addEventListener("input", () => this.arrange());
    this.order.addEventListener("change", () => this.arrange());
    this.more.addEventListener("click", () => { this.isWhole = true; this.arrange(); });
  }

  /** Show all nodes; ``changed`` are the ids of those that differ from last time, or null for all. */
  update(nodes, changed, problems, now) {
    const before = Object.keys(this.nodes).length;
    const troubledBefore = [...this.troubled].join();
    this.nodes = nodes;
    this.troubled = new Set(problems.filter((problem) => problem.severity !== "info").map((problem) => problem.node_id));
    const isOther = changed === null || Object.keys(nodes).length !== before || [...this.troubled].join() !== troubledBefore;
    if (isOther) this.arrange();
    for (const id of changed ?? []) if (this.rows.has(id) && nodes[id]) this.write(this.rows.get(id), id, nodes[id]);
    this.tick(now);
  }

  /** Decide which rows are shown, and in which order. */
  arrange() {
    const wanted = this.filter.value.trim().toLowerCase();
    const ids = Object.keys(this.nodes).filter((id) => this.isFound(id, wanted));
    ids.sort((one, other) => this.rank(one) - this.rank(other) || this.nodes[one].num - this.nodes[other].num);
    const shown = this.isWhole ? ids : ids.slice(0, SHOWN_AT_ONCE);
    const rows = new Map(shown.map((id) => [id, this.rows.get(id) ?? this.make(id)]));
    this.rows = rows;
    for (const [id, row] of rows) this.write(row, id, this.nodes[id]);
    this.body.replaceChildren(...[...rows.values()].map((row) => row.element));
    const count = Object.keys(this.nodes).length;
    say(document.querySelector("#nodes-count"), count ? `${number(ids.length)} of ${number(count)}` : "");
    this.more.hidden = shown.length === ids.length;
    say(this.more, `Show all ${number(ids.length)}`);
    const empty = document.querySelector("#nodes-empty");
    empty.hidden = ids.length > 0;
    say(empty, count ? "No node matches the filter." : "No node is registered. Add one to node-config.json and restart, or: dapi node add");
  }

  isFound(id, wanted) {
    const node = this.nodes[id];
    return !wanted || [id, node.socket, node.duty, node.does, node.reason, node.problem].join(" ").toLowerCase().includes(wanted);
  }

  rank(id) {
    const node = this.nodes[id];
    if (this.order.value === "last_at") return node.last_at ?? 0;
    if (this.order.value === "p99_ms") return -(node.p99_ms ?? 0);
    if (this.order.value === "trouble") return this.troubled.has(id) ? 0 : node.problem ? 1 : 2;
    return 0;
  }

  make(id) {
    const cell = (label, attributes = {}) => make("td", { "data-label": label, ...attributes });
    const cells = {
      duty: cell("", { class: "wide" }), socket: cell("", { class: "wide" }),
      byWebsocket: cell("by WebSocket", { class: "n" }), byHttp: cell("by HTTP", { class: "n" }), doubled: cell("doubled", { class: "n" }),
      last: cell("last batch", { class: "n" }), ack: cell("ack", { class: "n" }), errors: cell("errors", { class: "n" }),
    };
    const state = make("span");
    const reason = make("small");
    cells.socket.append(state, reason);
    const does = make("span");
    const problem = make("small", { class: "bad" });
    cells.duty.append(does, problem);
    const toggle = make("button", { type: "button" });
    toggle.addEventListener("click", () => this.act(id, this.nodes[id].enabled ? "disable" : "enable"));
    const connect = make("button", { type: "button", "aria-label": `Try the WebSocket of ${id} now` }, "Try now");
    connect.addEventListener("click", () => this.act(id, "connect"));
    const address = make("small");
    const name = make("th", { scope: "row" }, make("span", {}, id), address);
    const actions = make("td", { class: "actions wide" }, toggle, " ", connect);
    const element = make("tr", {}, name, ...Object.values(cells), actions);
    return { element, cells, state, reason, does, problem, toggle, connect, address };
  }

  write(row, id, node) {
    const { cells } = row;
    say(row.address, `number ${node.num}, ${node.url}`);
    say(row.does, node.enabled ? (node.does ?? node.command ?? "–") : "disabled");
    say(row.problem, node.problem ?? (node.duty && node.does && !doesItsDuty(node.duty, node.does) ? `is to ${node.duty}` : ""));
    say(cells.byWebsocket, number(node.by_websocket));
    say(cells.byHttp, number(node.by_http));
    say(cells.doubled, number(node.doubled));
    say(cells.ack, node.p50_ms === null ? "–" : `${milliseconds(node.p50_ms)}, ${milliseconds(node.p99_ms)}`);
    say(cells.errors, number(node.errors));
    cells.errors.classList.toggle("bad", node.errors > 0);
    say(row.toggle, node.enabled ? "Disable" : "Enable");
    row.toggle.setAttribute("aria-label", `${node.enabled ? "Disable" : "Enable"} ${id}`);
    row.connect.hidden = node.socket !== "waiting" && node.socket !== "refused";
    row.state.className = node.socket === "open" ? "good" : node.socket === "refused" ? "bad" : "";
    say(row.reason, node.reason ?? "");
  }

  /** Bring the times of the shown rows up to date. */
  tick(now) {
    for (const [id, row] of this.rows) {
      const node = this.nodes[id];
      if (!node) continue;
      const next = node.until !== null && node.until > now ? `, next try in ${span(node.until - now)}` : "";
      const open = node.socket === "open" ? ` for ${span(now - node.since)}` : "";
      say(row.state, `${MARKS[node.socket] ?? ""} ${node.socket}${open}${next}`);
      ago(row.cells.last, node.last_at, now);
    }
  }
}

/** Whether what a node does is what it is to do, as far as the words tell. */
function doesItsDuty(duty, does) {
  const begin = { GENERATE: "GENERAT", VALIDATE: "VALIDAT", INFERENCE: "INFERENCE", STOPPED: "STOPPED" }[duty];
  return begin === undefined || does.startsWith(begin);
}
