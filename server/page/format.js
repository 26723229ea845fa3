"use strict";
// Values as people read them. Pure: times and sizes in, text out.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function bytes(size) {
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) { size /= 1024; unit += 1; }
  return `${unit ? size.toFixed(1) : Math.round(size)}\u00a0${UNITS[unit]}`;
}

function count(value) { return value.toLocaleString("en"); }

function perSecond(value) { return value < 10 ? value.toFixed(1) : count(Math.round(value)); }

function share(value) { return value === null ? "–" : `${(value * 100).toFixed(1)}\u00a0%`; }

function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)}\u00a0ms`;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)}\u00a0${unit}`;
  }
  return `${Math.floor(seconds)}\u00a0s`;
}

function ago(at, now) {
  if (at === null) return "never";
  return at <= now ? (now - at < 1 ? "now" : `${span(now - at)} ago`) : `in ${span(at - now)}`;
}

function milliseconds(seconds) {
  return seconds === null ? "–" : `${Number((seconds * 1000).toPrecision(3))}\u00a0ms`;
}

function clock(at) { return new Date(at * 1000).toLocaleTimeString(); }

function moment(at) { return at === null ? "–" : new Date(at * 1000).toLocaleString(); }

function shortDigest(digest) { return digest.replace(/^(\w+:[0-9a-f]{12}).*$/, "$1…"); }
