// Elements, numbers and times, as all parts of the page write them.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; children are elements or text. What came from outside only ever becomes text or an attribute. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

/** Make an element of a drawing. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set a text only where it differs, so that nothing that is selected or read aloud is disturbed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en");

export function number(value) {
  return value === null || value === undefined ? "–" : whole.format(value);
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** A span of seconds in its two largest units at most. */
export function span(seconds) {
  const rest = Math.max(0, Math.round(seconds));
  if (rest < 120) return `${rest} s`;
  if (rest < 7200) return `${Math.floor(rest / 60)} min`;
  if (rest < 172800) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} days`;
}

// The Swedish way of writing it is nearly ISO 8601: 2026-01-31 17:05:09.
export function absolute(unixSeconds) {
  return new Date(1000 * unixSeconds).toLocaleString("sv-SE");
}

export function timeOfDay(unixSeconds) {
  return new Date(1000 * unixSeconds).toLocaleTimeString("sv-SE");
}

/** "12 s ago", with the time of day on hover. */
export function ago(element, unixSeconds, now) {
  if (unixSeconds === null || unixSeconds === undefined) {
    say(element, "–");
    element.removeAttribute("title");
    return;
  }
  say(element, `${span(now - unixSeconds)} ago`);
  element.title = absolute(unixSeconds);
}
