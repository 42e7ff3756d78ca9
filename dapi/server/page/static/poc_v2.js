// The network's own proof of compute (PoC v2): what the relay hands on, and each stage by model.

import { make, number, plural, say } from "./words.js";

const find = (selector) => document.querySelector(selector);

/** Show it, or hide the section where neither relay nor watch is set (null). */
export function showPocV2(found) {
  find("#poc-v2").hidden = found === null;
  if (found === null) return;
  const { relay, stages } = found;
  const where = found.height === null ? "The api container has not told its block yet." : `${found.phase}, block ${number(found.height)}.`;
  say(find("#poc-v2-where"), where);
  const away = relay?.away ? ` The api container is away: ${relay.away}.` : "";
  say(find("#poc-v2-relay"), relay === null ? "" : `Relay: ${plural(relay.kept, "callback")} kept, ${number(relay.waiting)} wait, ${number(relay.unsettled)} not counted yet, ${number(relay.held)} held, ${number(relay.set_aside)} refused for good, ${number(relay.late)} late.${away}`);
  find("#poc-v2-stages tbody").replaceChildren(...stages.map(rowOf));
  find("#poc-v2-empty").hidden = stages.length > 0;
}

function rowOf(stage) {
  const share = stage.share_at_a_third === null ? "–" : `${Math.round(100 * stage.share_at_a_third)} %`;
  const votes = stage.votes === null ? "–" : `${number(stage.votes)} of ${number(stage.participants)}`;
  const isBehind = stage.committed !== null && stage.stored !== null && stage.committed < stage.stored;
  return make("tr", {},
    make("th", { scope: "row" }, `block ${number(stage.height)}`, make("small", {}, stage.kind)), make("td", {}, stage.model),
    ...[stage.handed_on, stage.stored].map((value) => make("td", { class: "n" }, number(value))),
    make("td", { class: isBehind ? "n bad" : "n" }, number(stage.committed)),
    make("td", { class: "n" }, stage.growth_per_second === null ? "–" : number(Math.round(stage.growth_per_second))),
    make("td", { class: "n" }, share), make("td", { class: "n" }, votes), make("td", { class: stage.restarts ? "n bad" : "n" }, number(stage.restarts)));
}
