// Lists the events of /sse/usage. EventSource connects again by itself unless it was refused.
"use strict";

const state = document.getElementById("state");
const log = document.getElementById("log");
const KEPT = 20;
const source = new EventSource("/sse/usage");

function show(word, style) {
  state.textContent = word;
  state.className = "badge " + style;
}

source.onopen = () => show("connected", "active");
source.onerror = () => show(source.readyState === EventSource.CLOSED ? "refused" : "disconnected", "suspended");
source.addEventListener("usage", (event) => {
  const sample = JSON.parse(event.data);
  const none = { name: "no SIM", kbps: 0 };
  const busiest = sample.sims.reduce((most, rate) => (rate.kbps > most.kbps ? rate : most), none);
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString();
  const item = document.createElement("li");
  item.append(time, ` #${sample.tick}: ${sample.total_kbps} kbit/s together, most of it ${busiest.name} (${busiest.kbps})`);
  log.prepend(item);
  while (log.children.length > KEPT) log.lastChild.remove();
});
