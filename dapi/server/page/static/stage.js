// The stage as a time line in blocks, the way of the messages as a bar, and the batches of each minute.

import { absolute, draw, make, number, plural, say } from "./words.js";

const LEFT = 4;
const WIDTH = 992;

/** Draw a stage of GET epochs, with the block where the chain is now. */
export function drawStage(svg, stage, height) {
  const first = stage.start;
  const last = Math.max(stage.inference_from, stage.validations.last);
  const x = (block) => LEFT + (WIDTH * (Math.min(Math.max(block, first), last) - first)) / Math.max(1, last - first);
  const phases = [
    ["generate", stage.start, stage.generate_wind_down],
    ["wind down", stage.generate_wind_down, stage.generation_end],
    ["exchange", stage.generation_end, stage.validation_start],
    ["validate", stage.validation_start, stage.validate_wind_down],
    ["wind down", stage.validate_wind_down, last],
  ].filter(([, from, to]) => to > from);
  const drawing = phases.flatMap(([name, from, to]) => {
    const isNow = height >= from && height < to;
    const wide = x(to) - x(from);
    return [
      draw("rect", { class: isNow ? "phase now" : "phase", x: x(from), y: 24, width: wide, height: 22 }),
      wide > 60 ? draw("text", { class: "name", x: x(from) + 6, y: 39 }, name) : null,
    ];
  });
  for (const [name, window] of [["batches are accepted", stage.batches], ["verdicts are accepted", stage.validations]]) {
    drawing.push(draw("path", { class: "window", d: `M${x(window.first)} 54v6H${x(window.last)}v-6` }));
    drawing.push(draw("text", { x: x(window.first), y: 76 }, `${name} ${number(window.first)}–${number(window.last)}`));
  }
  const isIn = height >= first && height <= last;
  if (isIn) {
    const anchor = x(height) > 800 ? "end" : "start";
    drawing.push(draw("line", { class: "mark-now", x1: x(height), x2: x(height), y1: 16, y2: 62 }));
    drawing.push(draw("text", { class: "label-now", x: x(height), y: 12, "text-anchor": anchor }, `block ${number(height)}`));
  } else {
    drawing.push(draw("text", { x: LEFT, y: 12 }, height > last ? "over" : "to come"));
  }
  svg.replaceChildren(...drawing.filter(Boolean));
  svg.setAttribute("aria-label", `Stage ${stage.height}, blocks ${first} to ${last}; the chain is at block ${height}`);
}

/** Draw how many messages are in each state. */
export function drawWay(svg, list, batches, pending) {
  if (!batches) {
    say(list, "The database does not answer now.");
    return;
  }
  const unfinished = batches.stored + batches.in_flight + pending;
  const parts = { unfinished, confirmed: batches.confirmed, failed: batches.failed, expired: batches.expired };
  const total = Object.values(parts).reduce((sum, count) => sum + count, 0);
  let at = 0;
  const bars = Object.entries(parts).map(([name, count]) => {
    // What is there at all can be seen.
    const width = count ? Math.max(4, (1000 * count) / total) : 0;
    const bar = draw("rect", { class: name, x: Math.min(at, 1000 - width), y: 0, width, height: 22 });
    at += width;
    return bar;
  });
  svg.replaceChildren(...bars);
  svg.setAttribute("aria-label", Object.entries(parts).map(([name, count]) => `${count} ${name}`).join(", "));
  const counts = [
    ["pending", pending, ""], ["stored", batches.stored, ""], ["in flight", batches.in_flight, ""],
    ["confirmed", batches.confirmed, ""], ["failed", batches.failed, "bad"], ["expired", batches.expired, "bad"],
  ];
  if (list.children.length !== counts.length) {
    list.replaceChildren(...counts.map(() => make("div", {}, make("dt"), make("dd"))));
  }
  counts.forEach(([name, count, mood], index) => {
    const [term, value] = list.children[index].children;
    say(term, name);
    say(value, number(count));
    value.className = count ? mood : "";
  });
}

/** Draw the batches of each minute: those over the WebSocket below, those by HTTP above. */
export function drawMinutes(svg, note, minutes) {
  const count = minutes.websocket.length;
  const sums = minutes.websocket.map((value, index) => value + minutes.http[index]);
  const most = Math.max(1, ...sums);
  const step = 720 / 360;
  const from = 720 - count * step;
  const column = (low, high, index) => {
    const y = 110 - (104 * high) / most;
    return high > low ? `M${from + index * step} ${y}h${step * 0.85}V${110 - (104 * low) / most}h${-step * 0.85}z` : "";
  };
  svg.replaceChildren(
    draw("path", { class: "by-websocket", d: minutes.websocket.map((value, index) => column(0, value, index)).join("") }),
    draw("path", { class: "by-http", d: sums.map((value, index) => column(minutes.websocket[index], value, index)).join("") }),
  );
  if (!count) {
    say(note, "The first minute is not over yet.");
    return;
  }
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  const websocket = total(minutes.websocket);
  const http = total(minutes.http);
  say(note, `${plural(count, "minute")} until ${absolute(minutes.until)}: ${number(websocket)} over the WebSocket, ${number(http)} by HTTP; at most ${number(most)} in one minute.`);
  svg.setAttribute("aria-label", note.textContent);
}
