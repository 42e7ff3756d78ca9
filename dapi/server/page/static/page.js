// The page: one stream of what changes, and what is made of it.

import { Ledger, Messages, ask } from "./lists.js";
import { NodeTable } from "./nodes.js";
import { showPocV2 } from "./poc_v2.js";
import { drawMinutes, drawStage, drawWay } from "./stage.js";
import { absolute, make, number, plural, say, span } from "./words.js";

const OLD_SECONDS = 10;
const LISTS_SECONDS = 10;
const MARKS = { critical: "◆", warning: "▲", info: "●" };

const find = (selector) => document.querySelector(selector);
const state = { view: null, at: 0, heardAt: 0, problems: "" };
const ledger = new Ledger();
const messages = new Messages(confirm, tell);
const nodes = new NodeTable(actOnNode);

/** The time of dapi's machine, in unix seconds: the clock of the browser may be another. */
function now() {
  return state.at + (performance.now() - state.heardAt) / 1000;
}

function hear(event, view, changed) {
  const isFirst = state.view === null;
  state.view = view;
  state.at = event.at;
  state.heardAt = performance.now();
  show(changed);
  if (isFirst) loadLists();
}

function connect() {
  const stream = new EventSource("/events");
  stream.addEventListener("snapshot", (event) => {
    const data = JSON.parse(event.data);
    hear(data, data, null);
  });
  stream.addEventListener("patch", (event) => {
    const { nodes: rows = {}, ...rest } = JSON.parse(event.data);
    const all = { ...state.view.nodes };
    for (const [id, fields] of Object.entries(rows)) {
      if (fields === null) delete all[id];
      else all[id] = { ...all[id], ...fields };
    }
    hear(rest, { ...state.view, ...rest, nodes: all }, Object.keys(rows));
  });
  stream.addEventListener("error", () => {
    // A browser gives up on an answer that is no stream, as a proxy or a dapi with too many readers gives.
    if (stream.readyState === EventSource.CLOSED) again();
  });
}

/** Connect once more in a while, or log in where the session has ended. */
async function again() {
  const status = await ask("restart").then(() => 200, (error) => error.status);
  if (status === 401) location.assign("/login");
  else setTimeout(connect, 5000);
}

function show(changed) {
  const { view } = state;
  say(find("#version"), view.version);
  const { chain } = view;
  say(find("#chain"), chain.height ? `${chain.chain_id}, block ${number(chain.height)}: ${chain.state}` : `chain: ${chain.reason ?? chain.state}`);
  showProblems(view.problems);
  showRestart(view.restart);
  showSituation(view.situation, view.validation);
  showPocV2(view.poc_v2);
  drawWay(find("#way"), find("#counts"), view.batches, view.pending);
  drawMinutes(find("#chart"), find("#chart-note"), view.minutes);
  nodes.update(view.nodes, changed, view.problems, now());
  tick();
}

function showProblems(problems) {
  const grave = problems.filter((problem) => problem.severity === "critical").length;
  const warnings = problems.filter((problem) => problem.severity === "warning").length;
  const words = grave ? `${plural(grave, "problem")} that cost${grave === 1 ? "s" : ""} batches` : warnings ? plural(warnings, "warning") : "All is well";
  say(find("#verdict-heading"), words);
  document.title = grave || warnings ? `(${grave + warnings}) dapi` : "dapi";
  const text = JSON.stringify(problems);
  if (text === state.problems) return;
  state.problems = text;
  find("#problems").replaceChildren(...problems.map((problem) => make("li", { "data-id": problem.id },
    make("span", { class: problem.severity }, make("span", { class: "mark", "aria-hidden": "true" }, MARKS[problem.severity]), problem.severity),
    make("div", {}, make("div", { class: "what" }, problem.problem), make("div", { class: "to-do" }, problem.to_do),
      make("div", { class: "when" }, make("span", { "data-since": Date.parse(problem.since) / 1000 }, ""),
        ` · more: docs/problems.md, ${problem.chapter}`)))));
}

function showRestart(advice) {
  if (advice === null) {
    say(find("#restart"), "dapi follows no chain: it cannot say when a restart does harm.");
    return;
  }
  const container = advice.api_container ? ` The api container: ${restartWords(advice.api_container)}.` : "";
  say(find("#restart"), `Safe to restart: ${restartWords(advice)}.${container}`);
}

function restartWords({ safe, reason, blocks_left: left, safe_at: at }) {
  if (safe) return left ? `yes, for ${plural(left, "block")}` : "yes";
  return `no, ${reason}${at ? `; yes from block ${at} on` : ""}`;
}

function showSituation(situation, validation) {
  if (!situation) return;
  const left = situation.blocks_left === null ? "" : `, ${plural(situation.blocks_left, "block")} until the next phase`;
  const kind = situation.is_confirmation ? "confirmation PoC" : `epoch ${situation.epoch_index}`;
  const progress = validation ? Object.entries(validation).filter(([, value]) => typeof value === "number").map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value)}`).join(", ") : "";
  say(find("#situation"), `${situation.phase} of ${kind}${left}.${progress ? ` Validation: ${progress}.` : ""}`);
  const stage = ledger.stages.find((each) => each.height === situation.stage_height) ?? ledger.stages[0];
  if (stage) drawStage(find("#stage"), stage, situation.height);
}

function tick() {
  if (state.view === null) return;
  const silent = (performance.now() - state.heardAt) / 1000;
  const isOld = silent > OLD_SECONDS;
  const fresh = find("#fresh");
  say(fresh, isOld ? `This is ${span(silent)} old: dapi does not answer, trying again` : "live");
  fresh.classList.toggle("old", isOld);
  for (const when of document.querySelectorAll("[data-since]")) {
    const since = Number(when.dataset.since);
    say(when, `for ${span(now() - since)}`);
    when.title = absolute(since);
  }
  nodes.tick(now());
}

async function loadLists() {
  const isAtTop = messages.rows.length <= 25;
  await Promise.all([ledger.load(), isAtTop && !messages.form.elements.id.value ? messages.load() : null]);
  if (state.view) showSituation(state.view.situation, state.view.validation);
}

function confirm(question, text) {
  const dialog = find("#confirm");
  say(dialog.querySelector("h2"), question);
  say(dialog.querySelector("p"), text);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function tell(text) {
  say(find("#toast"), text);
  setTimeout(() => say(find("#toast"), ""), 8000);
}

const CONSEQUENCES = {
  disable: "dapi stops the node and leaves it alone. Batches that it still sends are kept.",
  enable: "dapi gives the node its duty, at once.",
};
const RESULTS = { disable: "is disabled", enable: "is enabled", connect: "its WebSocket is tried now" };

async function actOnNode(id, action) {
  const word = action[0].toUpperCase() + action.slice(1);
  if (action in CONSEQUENCES && !(await confirm(`${word} ${id}?`, CONSEQUENCES[action]))) return;
  try {
    await ask(`nodes/${encodeURIComponent(id)}/${action}`, { method: "POST" });
    tell(`${id}: ${RESULTS[action]}.`);
  } catch (error) {
    tell(error.message);
  }
}

connect();
setInterval(tick, 1000);
setInterval(() => { if (!document.hidden && state.view) loadLists(); }, 1000 * LISTS_SECONDS);
