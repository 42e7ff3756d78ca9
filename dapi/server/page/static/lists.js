// What the page asks for itself: the ledger of the last stages, the last messages, and one message's story.

import { absolute, make, number, say, timeOfDay } from "./words.js";

const STAGES = 8;
const LINES = 25;

/** Ask the admin API; throws an Error with what it says. */
export async function ask(path, options = {}) {
  const answer = await fetch(`/admin/v1/${path}`, { headers: { "Content-Type": "application/json" }, ...options });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error ?? `${answer.status}`), { status: answer.status });
  return body;
}

export class Ledger {
  constructor() {
    this.body = document.querySelector("#ledger tbody");
    this.opened = new Set();
    this.stages = [];
  }

  async load() {
    try {
      this.stages = (await ask(`epochs?limit=${STAGES}`)).epochs;
    } catch (error) {
      say(document.querySelector("#ledger-empty"), error.message);
      return;
    }
    document.querySelector("#ledger-empty").hidden = this.stages.length > 0;
    this.write();
  }

  write() {
    this.body.replaceChildren(...this.stages.flatMap((stage) => this.rowsOf(stage)));
  }

  rowsOf(stage) {
    const nodes = Object.entries(stage.nodes).filter(([, node]) => node.generated || node.validated || node.weight);
    const sum = (name) => nodes.reduce((total, [, node]) => total + (node[name] ?? 0), 0);
    const isOpen = this.opened.has(stage.height);
    const more = make("button", { type: "button", "aria-expanded": String(isOpen) }, isOpen ? "Hide" : number(nodes.length));
    more.addEventListener("click", () => {
      if (isOpen) this.opened.delete(stage.height);
      else this.opened.add(stage.height);
      this.write();
    });
    const claim = stage.claim;
    const paid = !claim ? "–" : claim.paid ? `paid ${number(claim.paid)}` : claim.owed ? `owed ${number(claim.owed)}` : "–";
    const kind = stage.is_confirmation ? "confirmation" : `epoch ${stage.epoch_index}`;
    const weight = stage.effective_weight === null ? number(stage.weight) : number(stage.effective_weight);
    const row = make("tr", {},
      make("th", { scope: "row" }, `block ${number(stage.height)}`, make("small", {}, kind)),
      ...cells([sum("generated"), sum("nonces"), sum("stored") + sum("in_flight"), sum("confirmed")]),
      ...cells([sum("failed"), sum("expired")], "bad"), ...cells([sum("validated")]),
      make("td", { class: "n" }, weight), make("td", {}, paid), make("td", {}, more));
    const subs = isOpen ? nodes.map(([id, node]) => make("tr", { class: "sub" },
      make("th", { scope: "row" }, id || "unknown node", node.not_counted ? make("small", { class: "bad" }, node.not_counted) : null),
      ...cells([node.generated, node.nonces, node.stored + node.in_flight, node.confirmed]),
      ...cells([node.failed, node.expired], "bad"), ...cells([node.validated, node.weight]), make("td"), make("td"))) : [];
    return [row, ...subs];
  }
}

function cells(values, mood = "") {
  return values.map((value) => make("td", { class: value && mood ? `n ${mood}` : "n" }, number(value)));
}

export class Messages {
  /** ``confirm`` asks a person, ``tell`` shows a result. */
  constructor(confirm, tell) {
    this.confirm = confirm;
    this.tell = tell;
    this.body = document.querySelector("#batches tbody");
    this.form = document.querySelector("#batches-filter");
    this.more = document.querySelector("#batches-more");
    this.rows = [];
    this.next = null;
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.load(); });
    this.more.addEventListener("click", () => this.load(this.next));
    this.retryAll = document.querySelector("#retry-all");
    this.retryAll.addEventListener("click", () => this.sendAllAgain());
  }

  /** Load the newest messages that match, or those before ``cursor`` after the ones that are there. */
  async load(cursor = null) {
    const wanted = new FormData(this.form);
    const id = wanted.get("id").trim();
    if (id) {
      await this.tellStory(id);
      return;
    }
    const query = new URLSearchParams({ limit: String(LINES) });
    for (const name of ["node_id", "kind", "state"]) if (wanted.get(name)) query.set(name, wanted.get(name).trim());
    if (cursor !== null) query.set("cursor", cursor);
    const empty = document.querySelector("#batches-empty");
    try {
      const page = await ask(`batches?${query}`);
      this.rows = cursor === null ? page.batches : [...this.rows, ...page.batches];
      this.next = page.next;
      say(empty, "No message matches. Clear the filter to see all.");
    } catch (error) {
      this.rows = [];
      this.next = null;
      say(empty, error.message);
    }
    this.body.replaceChildren(...this.rows.map((row) => this.rowOf(row)));
    empty.hidden = this.rows.length > 0;
    this.more.hidden = this.next === null;
    this.retryAll.hidden = wanted.get("state") !== "failed" || !this.rows.length;
  }

  /** Send all failed messages that match the filter again, a part of them with each request. */
  async sendAllAgain() {
    const wanted = new FormData(this.form);
    const query = new URLSearchParams();
    for (const name of ["node_id", "kind"]) if (wanted.get(name)) query.set(name, wanted.get(name).trim());
    const which = [...query.values()].join(" ") || "every node and kind";
    if (!(await this.confirm("Send all failed messages again?", `Those of ${which}, as long as their windows are open.`))) return;
    let sent = 0;
    try {
      for (let next = 0; next !== null;) {
        const done = await ask(`batches/retry?${query}`, { method: "POST" });
        sent += done.retried;
        next = done.next;
        if (next !== null) query.set("cursor", next);
      }
      this.tell(`${number(sent)} are sent again.`);
    } catch (error) {
      this.tell(`${number(sent)} are sent again, then: ${error.message}`);
    }
    this.load();
  }

  rowOf(row) {
    const when = Date.parse(row.received_at) / 1000;
    const open = make("button", { type: "button", class: "link", "aria-label": `Story of message ${row.batch_id}` }, row.batch_id.slice(0, 12));
    open.addEventListener("click", () => this.tellStory(row.batch_id));
    const mood = ["failed", "expired", "damaged"].includes(row.state) ? "bad" : "";
      return make("tr", {},
      make("td", { title: absolute(when) }, timeOfDay(when)), make("td", {}, row.node_id || "–"), make("td", {}, row.kind),
      make("td", {}, row.via), make("td", { class: "n" }, number(row.height)), make("td", { class: "n" }, number(row.nonces)),
      make("td", { class: mood }, row.state.replace("_", " "), row.reason ? make("small", {}, row.reason) : null), make("td", {}, open));
  }

  /** Show all that is known of one message. */
  async tellStory(id) {
    const dialog = document.querySelector("#story");
    let story = this.rows.find((row) => row.batch_id === id);
    try {
      story = await ask(`batches/${encodeURIComponent(id)}`);
    } catch (error) {
      if (!story) return this.tell(error.message);
    }
    const lines = Object.entries(story).flatMap(([name, value]) => linesOf(name, value));
    dialog.querySelector("dl").replaceChildren(...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const retry = dialog.querySelector("#story-retry");
    retry.hidden = story.state !== "failed";
    retry.onclick = async () => {
      dialog.close();
      if (!(await this.confirm("Send this message again?", "It is sent with the next transaction, as long as its window is open."))) return;
      try {
        await ask(`batches/${encodeURIComponent(id)}/retry`, { method: "POST" });
        this.tell("The message is sent again.");
      } catch (error) {
        this.tell(error.message);
      }
      this.load();
    };
    dialog.showModal();
  }
}

function linesOf(name, value) {
  const label = name.replaceAll("_", " ");
  if (value === null || value === "") return [];
  if (Array.isArray(value)) return value.flatMap((each, index) => linesOf(`${label} ${index + 1}`, each));
  if (typeof value === "object") return [[label, Object.entries(value).filter(([, each]) => each !== null).map(([key, each]) => `${key.replaceAll("_", " ")} ${each}`).join(", ")]];
  return [[label, String(value)]];
}
